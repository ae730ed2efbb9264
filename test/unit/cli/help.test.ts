import { describe, expect, it } from "vitest";
import { plain } from "../../../cli/text/format.ts";
import { banner } from "../../../cli/verbs/dev.ts";
import { COORDINATOR_TABLE } from "../../../coordinator/config.ts";
import { helpText } from "../../../lib/config/config.ts";
import { width } from "../../../lib/width.ts";
import { runnerTable } from "../../../runner/config.ts";
import { ao, onTerminal } from "../../support/ao.ts";

const VERBS: readonly (readonly string[])[] = [
  ["dev"],
  ["start"],
  ["resume"],
  ["doctor"],
  ...["ls", "get", "stop", "logs", "prune"].map((verb) => ["runs", verb]),
  ...["ls", "get", "drain", "rm"].map((verb) => ["runners", verb]),
  ...["ls", "get", "tree", "events", "result", "rm"].map((verb) => ["sessions", verb]),
  ...["ls", "get", "create", "rm", "enable", "disable"].map((verb) => ["blueprints", verb]),
  ...["ls", "check", "init"].map((verb) => ["executors", verb]),
];

const tooLong = (text: string, columns: number) => text.split("\n").filter((line) => width(line) > columns);

describe("help", () => {
  it("has the options of every verb once, on the page of ao", async () => {
    const { stdout } = await ao(["--help"]);
    expect(stdout).toContain("--coordinator-url");
    expect(stdout).toContain("Exit codes:");
    expect(tooLong(stdout, 80)).toEqual([]);
  });

  it.each(VERBS.map((verb) => [verb.join(" "), verb] as const))(
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
