import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FakeCoordinator } from "../../support/fake-run-service.ts";
import { inRepository } from "../../support/paths.ts";

/* `ao` with what it imports and nothing else, as it is shipped alone. */

let dir: string;
let fake: FakeCoordinator;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "ao-alone-"));
  for (const part of ["cli", "client", "lib", "gen", "package.json"])
    cpSync(inRepository(part), join(dir, part), { recursive: true });
  symlinkSync(inRepository("node_modules"), join(dir, "node_modules"));
  fake = await new FakeCoordinator().start();
});
afterEach(async () => {
  await fake.stop();
  rmSync(dir, { recursive: true, force: true });
});

function ao(...args: string[]): Promise<{ exitCode: unknown; stdout: string; stderr: string }> {
  const env = { PATH: process.env["PATH"], HOME: dir };
  return new Promise((resolve) => {
    execFile(process.execPath, [join(dir, "cli/main.ts"), "-c", fake.url, ...args], { env }, (error, stdout, stderr) =>
      resolve({ exitCode: error === null ? 0 : error.code, stdout, stderr }),
    );
  });
}

describe("ao without the coordinator and the runner", () => {
  it("starts runs and lists them", async () => {
    expect(await ao("start", "--prompt", "x")).toMatchObject({ exitCode: 0, stderr: "" });
    expect((await ao("runs")).stdout).toContain("run_1");
  });

  it("skips in doctor what the programs would say, and refuses dev with the reason: exit 4", async () => {
    const { stdout } = await ao("doctor");
    expect(stdout).toMatch(/^SKIP {2}programs +the coordinator is not installed here/m);
    expect(stdout).toMatch(/^SKIP {2}programs +the runner is not installed here/m);
    expect(stdout).toMatch(/^PASS {2}coordinator /m);
    expect(stdout).not.toContain("state dir");
    expect(await ao("dev")).toMatchObject({
      exitCode: 4,
      stderr: expect.stringMatching(/^error: the runner is not installed here: .*\nhint: install the package/),
    });
  });
});
