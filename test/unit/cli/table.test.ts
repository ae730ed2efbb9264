import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { timeline } from "../../../cli/demo/demo.ts";
import { checkText } from "../../../cli/doctor/doctor.ts";
import { blueprintPage, blueprintTable } from "../../../cli/text/blueprints.ts";
import { ansi, plain } from "../../../cli/text/format.ts";
import { runnerPage, runnerTable } from "../../../cli/text/runners.ts";
import { runPage, runTable } from "../../../cli/text/runs.ts";
import { sessionPage, sessionTable } from "../../../cli/text/sessions.ts";
import { table } from "../../../cli/text/table.ts";
import { fit, fitEnd, width, wrap } from "../../../lib/width.ts";
import { treeText } from "../../../cli/verbs/sessions-tree.ts";
import { AgentBlueprintSchema } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import { FailureReason, RunSchema, RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { RunnerSchema, Runner_Presence } from "../../../gen/agentrunner/v1/runner_pb.ts";
import { SessionSchema, SessionStatus } from "../../../gen/agentrunner/v1/session_pb.ts";

const NOW = Date.UTC(2026, 10, 21, 7, 50, 0);
const at = (ms: number) => timestampFromMs(NOW - ms);
const LONG = "a reason of many words that says, 日本語 and 😀 included, what happened and what to do about it now";

const runs = [0, 1, 2].map((n) =>
  create(RunSchema, {
    runId: `run_01a212075b0${n}8a4f5124a2e31e1a`,
    sessionId: `ses_01a212075b0${n}90b74376235229f4`,
    sessionName: n === 0 ? `ses_01a212075b0${n}90b74376235229f4` : `日本語 the nightly build of branch ${n}`,
    state: RunState.FAILED,
    demands: { executorProfile: "claude-code-with-tools", tags: ["docker", "gpu"] },
    runnerId: "lnch_0fe6a41749bf",
    createdAt: at(3_599_000),
    startedAt: at(3_500_000),
    claimedAt: at(3_550_000),
    endedAt: at(1_000),
    failure: FailureReason.EXECUTOR_EXIT,
    message: LONG,
    projectDir: "/srv/project",
    metadata: { text: "x".repeat(150) },
    prompt: LONG,
    attempts: [
      { attempt: 1, runnerId: "lnch_0fe6a41749bf", claimedAt: at(3_550_000), outcome: RunState.FAILED, message: LONG },
    ].map((attempt) => ({ ...attempt, eventsMissing: 1n })),
  }),
);
const sessions = runs.map(({ sessionId, sessionName, runId, runnerId }) =>
  create(SessionSchema, {
    sessionId,
    sessionName,
    lastRunId: runId,
    runnerId,
    updatedAt: at(1),
    agentName: "reviewer",
    status: SessionStatus.STOPPING,
  }),
);
const runners = ["lnch_0fe6a41749bf", "lnch_0fe6a4174aaa"].map((runnerId) =>
  create(RunnerSchema, {
    runnerId,
    hostname: "build-host-17.example.internal",
    projectDir: "/home/somebody/with/a/long/path/to/agent-runner",
    executorProfile: "claude-code-with-tools",
    tags: ["docker", "gpu", "linux", "large-memory"],
    maxConcurrentRuns: 16,
    presence: Runner_Presence.ONLINE,
    lastHeardAt: at(200_000),
    freeSlots: 0,
    name: "second",
  }),
);
const blueprint = create(AgentBlueprintSchema, {
  name: "reviewer-of-pull-requests",
  enabled: true,
  description: LONG,
  tags: ["code", "review", "security"],
});
const [session, ...children] = sessions.map((it) => ({ session: it, children: [], hidden: 0 }));

const TEXTS: Readonly<Record<string, (columns: number) => string>> = {
  "ao runs": (columns) => runTable(runs, NOW, plain, columns),
  "ao runs, coloured": (columns) => runTable(runs, NOW, ansi, columns),
  "ao runs get": (columns) => runPage(runs[1]!, NOW, ansi, columns),
  "ao runners": (columns) => runnerTable(runners, NOW, plain, columns),
  "ao runners get": (columns) => runnerPage(runners[0]!, NOW, plain, columns),
  "ao sessions": (columns) => sessionTable(sessions, NOW, plain, columns),
  "ao sessions get": (columns) => sessionPage(sessions[1]!, NOW, plain, columns),
  "ao sessions tree": (columns) => treeText({ ...session!, children }, columns),
  "ao blueprints": (columns) => blueprintTable([blueprint], plain, columns),
  "ao blueprints get": (columns) => blueprintPage(blueprint, plain, columns),
  "the times of the demo": (columns) => timeline(runs, plain, columns),
  "a check of ao doctor": (columns) =>
    checkText({ name: "disk", status: "fail", detail: LONG, help: LONG }, ansi, columns),
};

describe("on a terminal of 80, 60 and 40 columns", () => {
  it.each(Object.keys(TEXTS))("no line of %s is too long", (name) => {
    for (const columns of [80, 60, 40]) {
      const lines = TEXTS[name]!(columns).split("\n");
      // A path stays whole.
      expect(lines.filter((line) => width(line) > columns && !line.includes("/"))).toEqual([]);
    }
  });

  it("runs keep what matters most, with ids that tell them apart", () => {
    const head = (columns: number) => runTable(runs, NOW, plain, columns).split("\n")[0];
    expect(head(80)).toMatch(/^RUN +STATE +SESSION +CREATED/);
    expect(head(60)).toMatch(/^RUN +STATE +SESSION/);
    const ids = runTable(runs, NOW, plain, 60)
      .split("\n")
      .slice(1)
      .map((line) => line.split(" ")[0]);
    expect(new Set(ids).size).toBe(3);
    expect(runs.every(({ runId }, i) => runId.startsWith(ids[i]!))).toBe(true);
  });

  it("ids that differ early are cut to 16 digits, but not those of runners, which are short", () => {
    const rows = [
      ["run_01a212075b0d8a4f5124a2e31e1a", "lnch_0fe6a41749bf"],
      ["run_01a212075b0d9a4f5124a2e31e1a", "-"],
    ];
    expect(
      table(
        [
          { title: "RUN", ids: true },
          { title: "RUNNER", ids: true },
        ],
        rows,
        plain,
        40,
      ),
    ).toBe("RUN                   RUNNER\nrun_01a212075b0d8a4f  lnch_0fe6a41749bf\nrun_01a212075b0d9a4f  -");
  });
});

describe("in a pipe", () => {
  it("everything is whole", () => {
    const text = runTable(runs, NOW, plain);
    for (const part of ["run_01a212075b008a4f5124a2e31e1a", "lnch_0fe6a41749bf", "claude-code-with-tools"])
      expect(text).toContain(part);
  });
});

describe("width", () => {
  it("counts two columns for what is wide, none for marks and colours", () => {
    expect(["abc", "日本", "😀", "e\u0301", "a\u200db", "\u001b[31mred\u001b[0m"].map(width)).toEqual([
      3, 4, 2, 1, 2, 3,
    ]);
  });
  it("is what fits", () => {
    expect([fit("日本語", 5), fit("abc", 3), fit("abcd", 3), fit("abc", 0), fitEnd("/a/bc", 3)]).toEqual([
      "日本…",
      "abc",
      "ab…",
      "",
      "…bc",
    ]);
  });
  it("is what words are broken by, and marks stay on what they are on", () => {
    expect(wrap("日本語日本語日本語", 8)).toBe("日本語日\n本語日本\n語");
    expect(wrap("e\u0301".repeat(9), 8)).toBe(`${"e\u0301".repeat(8)}\ne\u0301`);
    expect(fitEnd("ab漢\u0301", 2)).toBe("…");
    expect(fitEnd("ab漢\u0301", 3)).toBe("…漢\u0301");
  });
  it("breaks lines between words, long words but for paths, and never more than that", () => {
    expect(wrap("one two  three", 8, "  ")).toBe("one two\n  three");
    expect(wrap("see /a/long/path/name here", 10)).toBe("see\n/a/long/path/name\nhere");
    const line = fc.oneof(fc.string(), fc.string({ unit: "grapheme-composite" }), fc.string({ unit: "binary" }));
    fc.assert(
      fc.property(line, fc.integer({ min: 12, max: 30 }), (text, max) => {
        const line = text.replaceAll(/[/\s]/g, " ");
        expect(
          wrap(line, max, "  ")
            .split("\n")
            .every((it) => width(it) <= max),
        ).toBe(true);
      }),
    );
  });
});
