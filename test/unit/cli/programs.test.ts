import { describe, expect, it } from "vitest";
import { programChecks } from "../../../cli/doctor/programs.ts";
import type { Check } from "../../../cli/doctor/check.ts";
import { listExecutors, ProgramMissing, programFile, settingsOf, storeOf } from "../../../cli/programs.ts";

const ENV = { PATH: process.env["PATH"], HOME: "/home/u" };

async function checked(env: NodeJS.ProcessEnv, inRoot?: (path: string) => string) {
  const checks: Check[] = [];
  const running = programChecks(env, inRoot);
  for (;;) {
    const { done, value } = await running.next();
    if (done === true) return { checks, facts: value };
    checks.push(value);
  }
}

describe("the programs that ao asks", () => {
  it("say what they would start with, and which executors there are", async () => {
    const settings = await settingsOf("coordinator", ["--lease-ttl", "1m"], { ...ENV, AGENT_COORDINATOR_STORE: "/s" });
    expect(settings["lease-ttl"]).toEqual({ value: 60_000, source: "flag" });
    expect(storeOf(settings)).toBe("/s");
    expect(storeOf(await settingsOf("coordinator", ["--memory"], ENV))).toBeUndefined();
    expect((await listExecutors([], ENV)).executors.map(({ name }) => name)).toContain("test-executor");
  });

  it("refuse in their own words, with their own exit code", async () => {
    await expect(settingsOf("runner", ["--max-runs", "x"], ENV)).rejects.toMatchObject({
      exitCode: 2,
      message: expect.stringMatching(/^the runner: --max-runs is "x"; expected a whole number/),
    });
  });

  it("are missing where the package has only ao", () => {
    expect(() => programFile("runner", (path) => `/nowhere/${path}`)).toThrow(ProgramMissing);
  });
});

describe("ao doctor and the programs", () => {
  it("has no check of its own for programs that are fine", async () => {
    const { checks, facts } = await checked(ENV);
    expect(checks).toEqual([]);
    expect(facts.stateDir).toBe("/home/u/.local/state/agent-runner");
    expect(facts.store).toMatch(/coordinator\.db$/);
  });

  it("fails for one that would not start, and goes on without what it would say", async () => {
    const { checks, facts } = await checked({ ...ENV, AGENT_RUNNER_MAX_RUNS: "x" });
    expect(checks).toEqual([
      {
        name: "programs",
        status: "fail",
        detail: expect.stringContaining("AGENT_RUNNER_MAX_RUNS"),
        help: expect.any(String),
      },
    ]);
    expect(facts).toMatchObject({ stateDir: undefined, executors: undefined, store: expect.any(String) });
  });

  it("skips those that are not installed here", async () => {
    const { checks, facts } = await checked(ENV, (path) => `/nowhere/${path}`);
    expect(checks.map(({ status, detail }) => `${status}: ${detail}`)).toEqual([
      "skip: the coordinator is not installed here: there is no /nowhere/coordinator/main.ts",
      "skip: the runner is not installed here: there is no /nowhere/runner/main.ts",
    ]);
    expect(facts).toEqual({ store: undefined, stateDir: undefined, executors: undefined });
  });
});
