import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { banner } from "../../../cli/verbs/dev.ts";
import { timeline } from "../../../cli/demo/demo.ts";
import { skewCheck } from "../../../cli/doctor/coordinator.ts";
import { nodeCheck } from "../../../cli/doctor/host.ts";
import { checkText } from "../../../cli/doctor/doctor.ts";
import { eventText } from "../../../cli/text/events.ts";
import { plain } from "../../../cli/text/format.ts";
import { runnerPage, runnerTable } from "../../../cli/text/runners.ts";
import { OFFER_UNDER_WAY } from "../../../lib/protocol/pending.ts";
import { pendingText, resultText, runPage, runTable, stateLine, whyPending } from "../../../cli/text/runs.ts";
import { sessionPage } from "../../../cli/text/sessions.ts";
import { ExecutorResultSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import {
  FailureReason,
  InvocationMode,
  OnLost_Policy,
  RunSchema,
  RunState,
} from "../../../gen/agentrunner/v1/run_pb.ts";
import { RunnerSchema, Runner_Presence } from "../../../gen/agentrunner/v1/runner_pb.ts";
import {
  Notification_State,
  SessionEventSchema,
  SessionSchema,
  SessionStatus,
} from "../../../gen/agentrunner/v1/session_pb.ts";

const T0 = Date.UTC(2026, 10, 21, 7, 50, 0);
const at = (seconds: number) => timestampFromMs(T0 + seconds * 1000);
const NOW = T0 + 42_000;

const failed = create(RunSchema, {
  runId: "run_0123456789abcdef01234567",
  sessionId: "ses_0123456789abcdef01234567",
  sessionName: "nightly",
  state: RunState.FAILED,
  mode: InvocationMode.START,
  prompt: "line one\nline two",
  projectDir: "/srv/project",
  demands: { executorProfile: "test-executor", tags: ["docker", "gpu"] },
  onLost: { policy: OnLost_Policy.RETRY, maxAttempts: 3 },
  timeout: durationFromMs(600_000),
  metadata: { team: "a" },
  attempt: 2,
  runnerId: "lnch_0123456789ab",
  failure: FailureReason.EXECUTOR_EXIT,
  message: "exit code 3\nboom",
  exit: { code: 3 },
  result: { text: "so far", data: { done: 1 } },
  createdAt: at(0),
  claimedAt: at(1),
  startedAt: at(1.25),
  endedAt: at(30),
  attempts: [
    {
      attempt: 1,
      runnerId: "lnch_a",
      claimedAt: at(0.5),
      startedAt: at(0.6),
      endedAt: at(0.9),
      outcome: RunState.PENDING,
      failure: FailureReason.LOST,
      message: "not heard from for 45 s",
      lateReport: { state: RunState.COMPLETED, receivedAt: at(60), message: "done" },
    },
    {
      attempt: 2,
      runnerId: "lnch_0123456789ab",
      claimedAt: at(1),
      startedAt: at(1.25),
      endedAt: at(30),
      outcome: RunState.FAILED,
      exit: { code: 3 },
      failure: FailureReason.EXECUTOR_EXIT,
      eventsMissing: 2n,
    },
  ],
});
const pending = create(RunSchema, {
  runId: "run_p",
  sessionId: "ses_p",
  sessionName: "ses_p",
  state: RunState.PENDING,
  createdAt: at(0),
  pendingReasons: ["no runner matches: 2 runners", "lnch_a lacks tag docker", "lnch_b is full 2/2"],
});

describe("runPage", () => {
  it("shows where a run stands, what it asked for, its attempts with late reports, and its result", () => {
    expect(runPage(failed, NOW, plain))
      .toBe(`run_0123456789abcdef01234567  failed after 28 s (30 s since it was created) — executor exit: exit code 3⏎boom

session    ses_0123456789abcdef01234567  nightly
mode       start
demands    profile test-executor · tags docker, gpu
directory  /srv/project
runner     lnch_0123456789ab
created    2026-11-21T07:50:00.000Z  42 s ago
claimed    2026-11-21T07:50:01.000Z  41 s ago
started    2026-11-21T07:50:01.250Z  40 s ago
ended      2026-11-21T07:50:30.000Z  12 s ago
exit       code 3
limits     timeout 10 min
on lost    retry, at most 3 attempts
metadata   {"team":"a"}
prompt     line one⏎line two

ATTEMPT  RUNNER             OUTCOME  CLAIMED       TOOK    EXIT
1        lnch_a             pending  07:50:00.500  300 ms  -       lost: not heard from for 45 s; too late, at 07:51:00.000, it reported completed: done
2        lnch_0123456789ab  failed   07:50:01.000  28 s    code 3  executor exit; 2 events missing

result
so far
{
  "done": 1
}`);
  });

  it("shows that events are missing of a run with one attempt, which needs no table otherwise", () => {
    const attempt = { attempt: 1, runnerId: "lnch_a", outcome: RunState.COMPLETED };
    const page = (eventsMissing: bigint) =>
      runPage(create(RunSchema, { runId: "run_1", attempts: [{ ...attempt, eventsMissing }] }), NOW, plain);
    expect(page(3n)).toContain("3 events missing");
    expect(page(0n)).not.toContain("ATTEMPT");
  });

  it("says why a pending run is pending, in the coordinator's words", () => {
    expect(runPage(pending, NOW, plain).split("\n")[0]).toBe(
      "run_p  pending 42 s — no runner matches: 2 runners: lnch_a lacks tag docker; lnch_b is full 2/2",
    );
  });
});

describe("stateLine", () => {
  it.each([
    [{ state: RunState.PENDING, createdAt: at(0) }, "pending 42 s"],
    [{ state: RunState.RUNNING, createdAt: at(0), claimedAt: at(1), startedAt: at(2) }, "running 40 s"],
    [{ state: RunState.CLAIMED, createdAt: at(0), claimedAt: at(1) }, "claimed 41 s"],
    [{ state: RunState.COMPLETED, createdAt: at(0), startedAt: at(0.5), endedAt: at(3.7) }, "completed after 3.2 s"],
    [
      { state: RunState.COMPLETED, createdAt: at(0), startedAt: at(40), endedAt: at(42) },
      "completed after 2.0 s (42 s since it was created)",
    ],
    [{ state: RunState.FAILED, createdAt: at(0), claimedAt: at(1), endedAt: at(9) }, "failed after 9.0 s"],
    [
      { state: RunState.STOPPED, createdAt: at(0), endedAt: at(1), message: "enough" },
      "stopped after 1.0 s, before it was started — enough",
    ],
    [{ state: RunState.COMPLETED }, "completed"],
    [{ state: 99 as RunState, createdAt: at(0) }, "99 42 s"],
  ] satisfies [MessageInitShape<typeof RunSchema>, string][])(
    "says state %# of this table in one line",
    (init, text) => {
      expect(stateLine(create(RunSchema, init), NOW, plain)).toBe(text);
    },
  );
});

describe("pendingText", () => {
  it.each([
    [[], ""],
    [["no runner is registered"], "no runner is registered"],
    [
      ["waits for a runner: 1 of 2 runners could take it", "lnch_a is full 1/1"],
      "waits for a runner: 1 of 2 runners could take it: lnch_a is full 1/1",
    ],
    [
      ["refused by lnch_a: not a directory", "no runner matches: 1 runner", "lnch_b is full 1/1"],
      "refused by lnch_a: not a directory; no runner matches: 1 runner: lnch_b is full 1/1",
    ],
    [["refused by lnch_a: not a directory"], "refused by lnch_a: not a directory"],
  ])("joins %j", (reasons, text) => expect(pendingText(reasons)).toBe(text));

  it("says what becomes of a run that nobody suits, beside the head", () => {
    const waiting = create(RunSchema, { ...pending, noMatchAt: timestampFromMs(NOW + 299_400) });
    expect(whyPending(waiting, NOW)).toBe(
      "no runner matches: 2 runners (fails in 5 min unless a runner that matches registers): " +
        "lnch_a lacks tag docker; lnch_b is full 2/2",
    );
    const offered = create(RunSchema, { ...waiting, pendingReasons: ["refused by lnch_a: no", OFFER_UNDER_WAY] });
    expect(whyPending(offered, NOW), "where a runner matches that time does not count").not.toContain("fails in");
  });
});

describe("runTable and timeline", () => {
  it("align runs under their headers", () => {
    expect(runTable([failed, pending], NOW, plain)).toBe(
      `RUN                           STATE    SESSION  PROFILE        RUNNER             CREATED   TOOK
run_0123456789abcdef01234567  failed   nightly  test-executor  lnch_0123456789ab  42 s ago  28 s  executor exit: exit code 3⏎boom
run_p                         pending  ses_p    any            -                  42 s ago  -`,
    );
    expect(timeline([failed, pending], plain)).toBe(
      `RUN                           SESSION  STATE    QUEUED→CLAIMED  CLAIMED→STARTED  STARTED→ENDED  TOTAL
run_0123456789abcdef01234567  nightly  failed   1000 ms         250 ms           28750 ms       30000 ms
run_p                         ses_p    pending  -               -                -              -`,
    );
  });
});

describe("runnerPage and runnerTable", () => {
  const runner = create(RunnerSchema, {
    runnerId: "lnch_0123456789ab",
    hostname: "host",
    projectDir: "/srv",
    executorProfile: "claude",
    executor: { type: "claude-code", command: "/x/ao-claude-code-exec", portable: true },
    tags: ["docker"],
    requireMatchingTags: true,
    maxConcurrentRuns: 4,
    activeRuns: 1,
    presence: Runner_Presence.ONLINE,
    draining: true,
    lastHeardAt: at(40),
    eventLoopLag: durationFromMs(7),
    bootId: "boot_1",
  });
  it("show a runner on a page and in a line", () => {
    expect(runnerTable([runner], NOW, plain)).toBe(
      `RUNNER             STATE             RUNS  PROFILE  HOST  DIRECTORY  TAGS    HEARD      NAME
lnch_0123456789ab  online, draining  1/4   claude   host  /srv       docker  2.0 s ago`,
    );
    expect(runnerPage(runner, NOW, plain)).toBe(`lnch_0123456789ab  online, draining

runs       1 of at most 4
profile    claude
executor   claude-code  /x/ao-claude-code-exec
portable   yes: sessions can move to another runner of the profile
host       host
directory  /srv
tags       docker (a run must name one)
heard      2026-11-21T07:50:40.000Z  2.0 s ago
loop lag   7 ms
boot       boot_1`);
  });
});

describe("sessionPage", () => {
  it("leaves out the name that nobody gave", () => {
    const session = create(SessionSchema, {
      sessionId: "ses_1",
      sessionName: "ses_1",
      status: SessionStatus.IDLE,
      lastRunId: "run_1",
    });
    expect(sessionPage(session, NOW, plain)).toBe("ses_1  idle\n\nlast run  run_1");
  });

  it("shows the children, and what they called back with to which run", () => {
    const told = { childSessionId: "ses_2", childRunId: "run_2", createdAt: at(32) };
    const session = create(SessionSchema, {
      sessionId: "ses_1",
      sessionName: "ses_1",
      status: SessionStatus.IDLE,
      lastRunId: "run_5",
      childSessionIds: ["ses_2", "ses_3"],
      notifications: [
        { ...told, state: Notification_State.CONSUMED, runId: "run_5", deliveries: 2 },
        { ...told, childRunId: "run_4", state: Notification_State.WAITING },
      ],
    });
    expect(sessionPage(session, NOW, plain)).toBe(
      "ses_1  idle\n\nlast run  run_5\n\n" +
        "CHILD  CALLBACK                OF RUN  TOLD BY  SETTLED\n" +
        "ses_3  -\n" +
        "ses_2  consumed, told 2 times  run_2   run_5    10 s ago\n" +
        "ses_2  waiting                 run_4   -        10 s ago",
    );
    session.childSessionIds = Array.from({ length: 80 }, (_, i) => `ses_${i + 2}`);
    const lines = sessionPage(session, NOW, plain).split("\n");
    expect(lines).toHaveLength(4 + 1 + 50 + 1);
    expect(lines.at(-1)).toBe("… and 31 older; -o json has them");
  });
});

describe("resultText", () => {
  it("is the text, the data as JSON, or both", () => {
    const text = (init: MessageInitShape<typeof ExecutorResultSchema>) =>
      resultText(create(ExecutorResultSchema, init));
    expect([text({}), text({ text: "a\n" }), text({ data: { b: 1 } })]).toEqual(["", "a", '{\n  "b": 1\n}']);
    expect(resultText(undefined)).toBe("");
  });
});

describe("eventText", () => {
  type Event = NonNullable<MessageInitShape<typeof SessionEventSchema>["event"]>;
  const transition = (state: RunState, more: object = {}): Event => ({ case: "transition", value: { state, ...more } });
  const said = (event: object): Event => ({ case: "executor", value: { event: event as never } });

  it.each<[Event, number, string, string]>([
    [transition(RunState.CLAIMED, { runnerId: "lnch_a" }), 1, "note", "07:50:00.000 claimed by lnch_a"],
    [transition(RunState.CLAIMED, { runnerId: "lnch_a" }), 2, "note", "07:50:00.000 claimed by lnch_a (attempt 2)"],
    [transition(RunState.PENDING, { failure: FailureReason.LOST }), 1, "note", "07:50:00.000 pending again: lost"],
    [transition(RunState.STOPPED, { message: "by me" }), 1, "note", "07:50:00.000 stopped: by me"],
    [said({ case: "output", value: { text: "raw\u001b[1m\n" } }), 1, "output", "raw\u001b[1m\n"],
    [said({ case: "message", value: { role: "assistant", text: "a\nb\n" } }), 1, "said", "assistant: a\nb"],
    [
      said({ case: "tool", value: { name: "ls", input: { kind: { case: "stringValue", value: "x" } } } }),
      1,
      "note",
      '07:50:00.000 tool ls "x"',
    ],
    [
      said({ case: "tool", value: { name: "ls", output: { kind: { case: "boolValue", value: true } } } }),
      1,
      "note",
      "07:50:00.000 tool ls → true",
    ],
    [said({ case: "tool", value: { name: "ls", error: "denied" } }), 1, "note", "07:50:00.000 tool ls failed: denied"],
    [
      said({ case: "usage", value: { inputTokens: 5n, outputTokens: 7n, costUsd: 0.01, model: "m" } }),
      1,
      "note",
      "07:50:00.000 usage 5 tokens in, 7 out, 0.0100 USD, m",
    ],
    [
      said({ case: "dropped", value: { events: 3n, bytes: 10n, reason: "limit" } }),
      1,
      "gap",
      "[… 3 events and 10 B dropped: limit …]",
    ],
    [said({ case: "session", value: { executorSessionId: "abc" } }), 1, "note", "07:50:00.000 session abc"],
  ])("shows event %# of this table as a line of its kind", (event, attempt, kind, text) => {
    expect(eventText(create(SessionEventSchema, { time: at(0), attempt, event }), plain)).toMatchObject({
      type: kind,
      text,
    });
  });

  it("shows nothing for a kind from the future, and says that an executor said something unknown", () => {
    expect(eventText(create(SessionEventSchema, {}), plain)).toBeUndefined();
    const unknown = create(SessionEventSchema, { event: { case: "executor", value: {} } });
    expect(eventText(unknown, plain)).toMatchObject({
      type: "note",
      text: expect.stringContaining("unknown event") as string,
    });
  });
});

describe("banner", () => {
  const facts = {
    url: "http://127.0.0.1:9000",
    installed: ["test-executor"],
    command: "../bin/ao",
    runners: [{ runnerId: "lnch_1", executorProfile: "p", maxConcurrentRuns: 4, projectDir: "/d" }],
  };
  it("names every URL, what persists, and commands to copy", () => {
    const text = banner({ ...facts, store: "/d/x.db" }, plain);
    for (const part of [
      "/health",
      "/ready",
      "/metrics",
      "grpcurl -plaintext 127.0.0.1:9000 list",
      "/d/x.db",
      "delete it to reset",
      "lnch_1  p, up to 4 runs in /d",
      "../bin/ao -c http://127.0.0.1:9000 start",
      "curl -s http://127.0.0.1:9000/agentrunner.v1.RunService/CreateRun",
    ])
      expect(text).toContain(part);
    expect(banner({ ...facts, store: undefined }, plain)).toContain("in memory: nothing survives");
  });
});

describe("checks of ao doctor", () => {
  it("take a clock within 5 s for right, and skip a missing or unreadable date", () => {
    expect(skewCheck("Sat, 21 Nov 2026 07:50:00 GMT", T0 + 4_999).status).toBe("pass");
    expect(skewCheck("Sat, 21 Nov 2026 07:50:00 GMT", T0 - 60_000)).toMatchObject({
      status: "fail",
      detail: "differs from the coordinator's by 1 min",
    });
    expect([skewCheck(undefined, T0).status, skewCheck("soon", T0).status]).toEqual(["skip", "skip"]);
  });
  it("fail on a Node that the programs do not start with, and pass on one that they do", () => {
    expect(nodeCheck("25.9.9")).toMatchObject({ status: "fail", detail: expect.stringContaining("pins v26") });
    for (const newer of ["26.0.0", "26.99.0", "30.1.0"]) expect(nodeCheck(newer).status).toBe("pass");
  });
  it("are a line each, with help below a failure", () => {
    expect(checkText({ name: "disk", status: "fail", detail: "full", help: "free space" }, plain)).toBe(
      "FAIL  disk         full\n                   → free space",
    );
  });
});
