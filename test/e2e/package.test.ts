import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { inRepository } from "../support/paths.ts";

/*
 * The published package, used outside of its checkout: packed, installed into an empty folder, and run from there. It asks
 * the npm registry for the dependencies, so it runs in CI only.
 */
const skipped = (process.env["CI"] ?? "") === "";
if (skipped) process.stderr.write("skipped: the package is installed from the npm registry in CI only (CI=true)\n");

let dir: string;

/** Runs a command in the folder that the package is installed in, without any PATH of the checkout. */
function run(command: string, ...args: string[]): string {
  const path = (process.env["PATH"] ?? "").split(":").filter((entry) => !entry.includes("node_modules"));
  const env = { PATH: path.join(":"), HOME: dir };
  return execFileSync(command, args, { cwd: dir, env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

describe.skipIf(skipped)("the package, installed in an empty folder", () => {
  beforeAll(() => {
    dir = realpathSync(mkdtempSync(join(tmpdir(), "package-")));
    execFileSync("npm", ["pack", "--pack-destination", dir], { cwd: inRepository(""), stdio: "pipe" });
    run("npm", "init", "--yes");
    run("npm", "install", "--no-audit", "--no-fund", "--prefer-offline", "./agent-runner-0.1.0.tgz");
  }, 300_000);
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it("holds no TypeScript, test or tool, and has no script to approve", () => {
    const files = run("tar", "-tzf", "agent-runner-0.1.0.tgz").split("\n");
    expect(files.filter((file) => /^package\/(test|bench|coordinator|node_modules|\.)/.test(file))).toEqual([]);
    expect(files.filter((file) => file.endsWith(".ts") && !file.startsWith("package/vendor/"))).toEqual([]);
    const { scripts } = JSON.parse(readFileSync(join(dir, "node_modules/agent-runner/package.json"), "utf8"));
    expect(Object.keys(scripts)).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(pre|post)?(install|prepare)$/)]),
    );
  });

  it("starts each program with npx, and finds its executors", () => {
    for (const program of ["ao", "agent-coordinator", "agent-runner"]) {
      expect(run("npx", program, "--version")).toContain("0.1.0");
    }
    expect(run("npx", "agent-runner", "--executor-list")).toMatch(
      /test-executor +\/.*node_modules\/agent-runner\/dist\/executors/,
    );
  });

  it("runs the demo: coordinator, runner, executors, a tree of agents, MCP tools", () => {
    expect(run("npx", "ao", "demo")).toContain("All as expected");
  }, 90_000);

  it("works when it is installed for all projects, npm i -g", () => {
    run(
      "npm",
      "install",
      "--global",
      "--prefix",
      join(dir, "global"),
      "--no-audit",
      "--no-fund",
      "--prefer-offline",
      "./agent-runner-0.1.0.tgz",
    );
    expect(run(join(dir, "global/bin/ao"), "--version").trim()).toBe("0.1.0");
  }, 120_000);
});
