import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { agentCheck, agentChecks } from "../../../cli/doctor/agents.ts";
import type { Check } from "../../../cli/doctor/check.ts";
import { checkText } from "../../../cli/doctor/doctor.ts";
import { executorChecks } from "../../../cli/doctor/host.ts";
import type { ListedAgent } from "../../../cli/programs.ts";
import { plain } from "../../../cli/text/format.ts";
import type { ProgramAnswer } from "../../../lib/program-output.ts";

let dir: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "doctor-agents-"));
});

afterEach(() => rmSync(dir, { recursive: true, force: true }));

const AGENT: ListedAgent = {
  label: "Robot",
  program: "/r",
  ready: true,
  version: "1.2.0",
  atLeast: "1.1.0",
  install: "npm install robot@1.2.0",
};

const ended = (output: string, code: number | null = 0, signal: string | null = null): ProgramAnswer => ({
  type: "ended",
  code,
  signal,
  output,
});

describe("the check of an installed agent", () => {
  it.each<[ProgramAnswer, string, string]>([
    [ended("Robot 1.2.0\n"), "pass", "robot: Robot 1.2.0 at /r, as known"],
    [ended("1.10.0"), "warn", "robot: Robot 1.10.0 at /r, and what is known of it was seen with 1.2.0"],
    [ended("1.1.0"), "warn", "robot: Robot 1.1.0 at /r, and what is known of it was seen with 1.2.0"],
    [ended("1.0.9"), "fail", "robot: Robot 1.0.9 at /r is too old: at least 1.1.0 can be driven"],
    [ended("oh no", 3), "fail", "robot: /r does not say its version: exit code 3, oh no"],
    [ended("", null, "SIGSEGV"), "fail", "robot: /r does not say its version: signal SIGSEGV, nothing"],
    [{ type: "not-started", message: "EACCES" }, "fail", "robot: /r cannot be started: EACCES"],
    [{ type: "too-slow" }, "warn", "robot: /r did not say its version in 20 s"],
  ])("of %j is %s", (answer, status, detail) => {
    const check = agentCheck(AGENT, "robot", answer);
    expect(check).toMatchObject({ name: "agents", status, detail });
    if (status !== "pass") expect(check.help).not.toBe("");
  });

  it("shows a warning as one", () => {
    const check = agentCheck(AGENT, "robot", ended("1.10.0"));
    expect(checkText(check, plain)).toMatch(
      /^WARN {2}agents {7}robot: Robot 1\.10\.0.*\n +→ npm install robot@1\.2\.0$/,
    );
  });
});

describe("the checks of agents", () => {
  const robot = (name: string, ask?: ListedAgent["ask"]) => ({
    name,
    path: "/executors/acp",
    source: "/executors",
    agent: { ...AGENT, ...(ask && { ask }) },
  });
  const checks = async (...executors: Parameters<typeof agentChecks>[0]["executors"][number][]): Promise<Check[]> => {
    const all: Check[] = [];
    for await (const check of agentChecks({ executors, problems: [] }, process.env)) all.push(check);
    return all;
  };

  it("ask each program once, with a home that goes again", async () => {
    const path = join(dir, "robot");
    writeFileSync(path, '#!/bin/sh\nmkdir "$HOME/made"; echo "$HOME $A $1" >>"$0.said"; echo 1.2.0\n');
    chmodSync(path, 0o755);
    const ask = { program: path, args: ["-v"], env: { A: "b" } };
    const found = await checks(robot("robot", ask), robot("android", { ...ask, env: {} }), robot("other"));
    expect(found).toMatchObject([{ status: "pass", detail: expect.stringContaining("robot, android: Robot 1.2.0") }]);
    const [home = "", ...said] = readFileSync(`${path}.said`, "utf8").trim().split(" ");
    expect(said).toEqual(["b", "-v"]);
    expect(home).toContain("ao-doctor-");
    expect(() => readFileSync(home)).toThrow("ENOENT");
  });

  it("say that there is none", async () => {
    expect(await checks(robot("robot"))).toMatchObject([{ name: "agents", status: "skip" }]);
  });

  it("are apart from those of the executors", () => {
    const executors = [{ name: "mine", path: "/m/x", source: "/m" }, robot("robot")];
    expect(executorChecks({ executors, problems: [] })).toMatchObject([{ status: "pass", detail: "mine  in /m" }]);
  });
});
