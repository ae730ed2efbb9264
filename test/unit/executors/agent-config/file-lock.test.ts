import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { withFileLock } from "../../../../executors/lib/agent-config/file-lock.ts";
import { inRepository } from "../../../support/paths.ts";
import { refusal, tempFolder } from "../../../support/agent-config.ts";

/** A process that takes the lock, says so, and holds it until it is killed. */
async function holder(lock: string) {
  const module = JSON.stringify(inRepository("executors/lib/agent-config/file-lock.ts"));
  const program = `import { writeSync } from "node:fs"; import { withFileLock } from ${module};
    withFileLock(${JSON.stringify(lock)}, () => { writeSync(1, "held"); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); });`;
  const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  await once(child.stdout, "data");
  return child;
}

it("is held against other processes, and gone with a holder that was killed with -9", async () => {
  const lock = join(tempFolder(), "lock");
  const child = await holder(lock);
  const error = refusal(() => withFileLock(lock, () => "got it", 1));
  expect(error.message).toBe(`${lock}: another process has held the lock for 1 ms: end it, and try again`);
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(withFileLock(lock, () => "got it", 1)).toBe("got it");
});

it("stays an empty file of its owner, and is free again when the work throws", () => {
  const lock = join(tempFolder(), "lock");
  expect(() => withFileLock(lock, () => JSON.parse("{"))).toThrow(SyntaxError);
  expect(withFileLock(lock, () => 1, 1)).toBe(1);
  expect([statSync(lock).size, statSync(lock).mode & 0o777]).toEqual([0, 0o600]);
});

it("says which file cannot be a lock", () => {
  const folder = tempFolder();
  mkdirSync(join(folder, "a folder"));
  expect(refusal(() => withFileLock(join(folder, "a folder"), () => 1)).message).toContain("EISDIR");
  writeFileSync(join(folder, "text"), "x".repeat(4096));
  expect(refusal(() => withFileLock(join(folder, "text"), () => 1)).message).toContain("cannot be used as a lock");
});
