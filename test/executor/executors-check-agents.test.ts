import { dirname } from "node:path";
import { describe, expect, it } from "vitest";
import { installedProgram } from "../../executors/lib/roster/find-program.ts";
import { loadRoster, rosterDirs } from "../../executors/lib/roster/load-roster.ts";
import { ao } from "../support/ao.ts";

/*
 * Real agents against the scripted model server. They are looked for in AGENT_RUNNER_AGENTS_DIR alone, so that nobody's own
 * installation is tested by surprise. CHECK_AGENTS names which, with commas; `all` are those of the roster.
 */

const LIMIT_MS = 15 * 60_000;

const { AGENT_RUNNER_AGENTS_DIR: agentsDir = "", CHECK_AGENTS = "claude" } = process.env;
const { entries } = loadRoster(rosterDirs({ HOME: "/nonexistent" }));
const wanted = entries.filter(({ name }) => CHECK_AGENTS === "all" || CHECK_AGENTS.split(",").includes(name));

describe("ao executors check of a real agent", () => {
  it.each(wanted.map((entry) => [entry.name, entry] as const))(
    "passes %s, but for what the roster says that it lacks",
    async (name, entry) => {
      if (agentsDir === "" || installedProgram(entry, { AGENT_RUNNER_AGENTS_DIR: agentsDir }) === undefined) {
        const where = agentsDir === "" ? "AGENT_RUNNER_AGENTS_DIR is not set" : `it is not installed in ${agentsDir}`;
        process.stderr.write(`${name} is not checked: ${where}\n`);
        return;
      }
      const env = {
        PATH: `${dirname(process.execPath)}:${process.env["PATH"]}`,
        HOME: process.env["HOME"] ?? "",
        AGENT_RUNNER_AGENTS_DIR: agentsDir,
      };
      const { exitCode, stdout, stderr } = await ao(["executors", "check", name, "-o", "json"], env);
      const points = stdout === "" ? [] : (JSON.parse(stdout) as { points: Point[] }).points;
      const failures = points.filter(({ status, known }) => status === "fail" && known === "");
      expect({ exitCode, failures, stderr }).toMatchObject({ exitCode: 0, failures: [] });
    },
    LIMIT_MS,
  );
});

interface Point {
  readonly name: string;
  readonly status: string;
  readonly detail: string;
  readonly known: string;
}
