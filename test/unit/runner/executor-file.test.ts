import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { runnerTable } from "../../../runner/config.ts";
import type { RunnerOptions } from "../../../runner/config.ts";
import { idleTimeoutOf } from "../../../runner/settings/executor-file.ts";
import { reloaded } from "../../../runner/settings/reload.ts";
import { find, resolveSettings } from "../../../runner/settings/resolve-settings.ts";
import { inRepository } from "../../support/paths.ts";
import { cleanUp, tempDir, testSettings } from "../../support/test-runner.ts";

afterEach(cleanUp);

/** A folder with an executor, and what stands beside it. */
function executor(beside: string | undefined): { dir: string; program: string; file: string } {
  const dir = tempDir();
  mkdirSync(join(dir, "slow"));
  const [program, file] = [join(dir, "slow/ao-slow-exec"), join(dir, "slow/executor.json")];
  writeFileSync(program, "#!/bin/sh\n", { mode: 0o755 });
  if (beside !== undefined) writeFileSync(file, beside);
  return { dir, program, file };
}

function settings(options: Partial<RunnerOptions>, projectDir = tempDir()) {
  const table = Object.entries(runnerTable({ HOME: "/nowhere" }, "/")).map(([key, { default: value }]) => [key, value]);
  const all = { ...(Object.fromEntries(table) as RunnerOptions), projectDir, ...options };
  return resolveSettings(all, find(all), "/");
}

describe("the idle timeout of an executor", () => {
  it("stands beside its program, however that is named", () => {
    const { dir, program, file } = executor('{ "idle_timeout": "10m", "later": true }');
    const idleTimeout = { ms: 600_000, of: { type: "executor", file } };
    expect(settings({ executorsDirs: [dir], executor: "slow" }).executor).toMatchObject({ idleTimeout });
    expect(settings({ executorPath: program }).executor).toMatchObject({ idleTimeout });
  });

  it("gives way to that of a profile", () => {
    const { dir, program, file } = executor('{ "idle_timeout": "10m" }');
    const profiles = join(dir, ".agent-orchestrator/profiles");
    mkdirSync(profiles, { recursive: true });
    writeFileSync(join(profiles, "own.json"), JSON.stringify({ type: "x", command: program, idle_timeout: "1h" }));
    writeFileSync(join(profiles, "none.json"), JSON.stringify({ type: "x", command: program }));
    const of = (profile: string) => settings({ profile }, dir).executor.idleTimeout;
    expect(of("own")).toMatchObject({ ms: 3_600_000, of: { type: "profile" } });
    expect(of("own")?.of.file).toMatch(/profiles\/own\.json$/);
    expect(of("none")).toEqual({ ms: 600_000, of: { type: "executor", file } });
  });

  it("is none where the file says nothing of it, or is not there", () => {
    for (const beside of [undefined, "{}"]) expect(idleTimeoutOf(executor(beside).program)).toBeUndefined();
  });

  it.each([
    ["{", /JSON/],
    ["[]", /must be a JSON object$/],
    ['{"idle_timeout":600}', /"idle_timeout" must be a duration such as 30s/],
    ['{"idle_timeout":"100d"}', /"idle_timeout" must be a duration such as 30s/],
    [" ".repeat(70_000), /at most 65536 bytes$/],
  ])("is refused with the file when that is wrong: %.30s", (beside, message) => {
    const { program, file } = executor(beside);
    expect(() => idleTimeoutOf(program)).toThrow(message);
    expect(() => settings({ executorPath: program })).toThrow(`${file}: `);
  });

  it("is ten minutes for those that drive an agent", () => {
    for (const name of ["claude-code", "codex", "acp", "agent-cli"]) {
      expect(idleTimeoutOf(inRepository(`executors/${name}/ao-${name}-exec`))?.ms).toBe(600_000);
    }
    expect(idleTimeoutOf(inRepository("executors/test-executor/ao-test-exec"))).toBeUndefined();
  });

  it("that changes is nothing to tell the coordinator", () => {
    const before = testSettings("http://127.0.0.1:1");
    const idleTimeout = { ms: 1, of: { type: "executor", file: "/x" } } as const;
    const { told, changed } = reloaded(before, { tags: [], executor: { ...before.executor, idleTimeout } });
    expect({ told, changed }).toEqual({ told: false, changed: true });
  });
});
