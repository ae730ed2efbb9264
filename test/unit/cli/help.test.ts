import type { Command } from "commander";
import { Readable } from "node:stream";
import { describe, expect, it } from "vitest";
import { Verbs } from "../../../cli/cli.ts";
import { commands } from "../../../cli/main.ts";
import { plain } from "../../../cli/text/format.ts";
import { banner } from "../../../cli/verbs/dev.ts";
import { COORDINATOR_TABLE } from "../../../coordinator/config.ts";
import { helpText } from "../../../lib/config/config.ts";
import { width } from "../../../lib/width.ts";
import { runnerTable } from "../../../runner/config.ts";
import { ao, onTerminal } from "../../support/ao.ts";

/** The names of every command that does something, as they are typed after `ao`. */
function verbsOf(command: Command): string[][] {
  const below = command.commands.flatMap((one) => verbsOf(one).map((names) => [one.name(), ...names]));
  return command.commands.length === 0 ? [[]] : below;
}

const nowhere = { write: () => true };
const io = { stdin: Readable.from([]), stdout: nowhere, stderr: nowhere, env: {}, onInterrupt: () => () => undefined };
const AO = commands(new Verbs(io), false);
const VERBS = verbsOf(AO);
/** Those, and `runs`, `sessions` and the like, whose help lists their verbs. */
const PAGES = [...AO.commands.filter((one) => one.commands.length > 0).map((one) => [one.name()]), ...VERBS];

const tooLong = (text: string, columns: number) => text.split("\n").filter((line) => width(line) > columns);

describe("help", () => {
  it("has the options of every verb once, on the page of ao", async () => {
    const { stdout } = await ao(["--help"]);
    expect(stdout).toContain("--coordinator-url");
    expect(stdout).toContain("Exit codes:");
    expect(tooLong(stdout, 80)).toEqual([]);
  });

  it("is looked at for every command that there is", () => {
    expect(VERBS.length).toBeGreaterThan(30);
    expect(VERBS.map((verb) => verb.join(" "))).toEqual(
      expect.arrayContaining(["demo", "ps", "wait", "sessions tree"]),
    );
  });

  it.each(PAGES.map((verb) => [verb.join(" "), verb] as const))(
    "of ao %s has no noise and fits 80 columns",
    async (_, verb) => {
      const { stdout } = await ao([...verb, "--help"]);
      expect(stdout).not.toMatch(/--coordinator-url|--color|default: (\{|"")/);
      expect(stdout).toContain("`ao --help`");
      expect(tooLong(stdout, 80)).toEqual([]);
    },
  );

  it("fits a narrower terminal, but for examples", async () => {
    expect(tooLong((await onTerminal(60, ["runs", "stop", "--help"])).split("Example")[0]!, 60)).toEqual([]);
  });

  it.each([80, 60])("of the daemons fits %d columns", (columns) => {
    const base = {
      version: "1",
      summary: "Does what it does.",
      epilogue: "0 done, 2 wrong flags",
      defaultFile: ".agent-orchestrator/file.yaml",
    };
    for (const text of [
      helpText({ ...base, name: "agent-coordinator", table: COORDINATOR_TABLE }, columns),
      helpText({ ...base, name: "agent-runner", table: runnerTable({ HOME: "/home/u" }, "/") }, columns),
    ])
      expect(tooLong(text, columns)).toEqual([]);
  });

  it("names its commands as the reader has to type them", async () => {
    const env = { AGENT_RUNNER_ARGV0: "/opt/x/bin/ao", PATH: "/bin" };
    const { stdout } = await ao(["runs", "get", "--help"], env);
    expect(stdout).toMatch(/^Usage: \/opt\/x\/bin\/ao runs get/);
    expect(stdout).toContain("\n  /opt/x/bin/ao runs get hello");
  });
});

describe("the banner of ao dev", () => {
  const text = banner(
    {
      url: "http://127.0.0.1:8765",
      store: "/home/somebody/project/.agent-orchestrator/coordinator.db",
      runners: [
        {
          runnerId: "lnch_0fe6a41749bf",
          executorProfile: "test-executor",
          maxConcurrentRuns: 4,
          projectDir: "/home/somebody/project",
        },
      ],
      installed: ["script-agent", "test-executor"],
      command: "npx ao",
    },
    plain,
    80,
  );
  it("fits 80 columns, with every URL whole", () => {
    expect(tooLong(text, 80)).toEqual([]);
    for (const page of ["health", "ready", "metrics"])
      expect(text).toMatch(new RegExp(`(^|\\s)http://127.0.0.1:8765/${page}(\\s|$)`, "m"));
  });
  it("has commands that a shell takes as they stand", () => {
    const commands = text.replaceAll("\\\n", "").match(/'\{[^']*\}'/g) ?? [];
    expect(commands.map((json) => JSON.parse(json.slice(1, -1)) as unknown)).toEqual(
      Array.from({ length: 2 }, () => ({ prompt: "Say hello", demands: { executor_profile: "test-executor" } })),
    );
    expect(text.replaceAll(/ \\\n +/g, " ")).toContain(
      'npx ao -c http://127.0.0.1:8765 start hello --profile test-executor --prompt "Say hello" --follow',
    );
  });
});
