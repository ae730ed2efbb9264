import { expect, test } from "vitest";
import { treeViolations } from "../../support/tree-history.ts";
import type { RunEnd, SessionHistory } from "../../support/tree-history.ts";

const RUN: RunEnd = { runId: "run_1", state: "COMPLETED", failure: "", started: true, delivers: [] };
const DELIVERING: RunEnd = { ...RUN, runId: "run_2", delivers: ["ses_c"] };
const LOST: RunEnd = { ...DELIVERING, state: "FAILED", failure: "LOST" };
const TOLD = { childSessionId: "ses_c", childRunId: "run_c", state: "CONSUMED", runId: "run_2", deliveries: 1 };
const PARENT: SessionHistory = {
  sessionId: "ses_p",
  parentSessionId: "",
  runs: [RUN, DELIVERING],
  callbackOwed: false,
  withCallback: false,
  treeStopped: false,
  notifications: [TOLD],
};
const CHILD: SessionHistory = {
  ...PARENT,
  sessionId: "ses_c",
  parentSessionId: "ses_p",
  runs: [{ ...RUN, runId: "run_c" }],
  withCallback: true,
  notifications: [],
};

test.each<[string, Partial<SessionHistory>, Partial<SessionHistory>]>([
  ["is delivered by one run", {}, {}],
  [
    "is delivered by a run that failed by itself",
    { runs: [RUN, { ...DELIVERING, state: "FAILED", failure: "EXECUTOR_EXIT" }] },
    {},
  ],
  [
    "is delivered again after a loss",
    { runs: [LOST, { ...DELIVERING, runId: "run_3" }], notifications: [{ ...TOLD, runId: "run_3", deliveries: 2 }] },
    {},
  ],
  [
    "is given up after three losses",
    { runs: [LOST, LOST, LOST], notifications: [{ ...TOLD, state: "GIVEN_UP", deliveries: 3 }] },
    {},
  ],
  [
    "waits for a person when its parent was stopped before it read it",
    {
      runs: [{ ...DELIVERING, state: "STOPPED", started: false }],
      notifications: [{ ...TOLD, state: "WAITING", deliveries: 0 }],
    },
    {},
  ],
  ["is forgiven when the tree was stopped", { runs: [RUN], notifications: [] }, { treeStopped: true }],
  [
    "is told of a failure at once, although the child is resumed later",
    {},
    {
      runs: [
        { ...RUN, runId: "run_c", state: "FAILED", failure: "EXECUTOR_EXIT" },
        { ...RUN, runId: "run_d" },
      ],
    },
  ],
  ["was never wanted", { runs: [RUN], notifications: [] }, { withCallback: false }],
])("a callback that %s breaks no promise", (_, parent, child) => {
  expect(
    treeViolations([
      { ...PARENT, ...parent },
      { ...CHILD, ...child },
    ]),
  ).toEqual([]);
});

test.each<[string, Partial<SessionHistory>, Partial<SessionHistory>, string]>([
  ["a run that never ends", {}, { runs: [{ ...RUN, state: "RUNNING" }] }, "ses_c: run_1 never ended; it is RUNNING"],
  ["a session that never settles", {}, { callbackOwed: true }, "ses_c: its end is still to be told"],
  ["a child nobody told of", { runs: [RUN], notifications: [] }, {}, "ses_c: was never told to its parent"],
  ["a child that is told of twice", { notifications: [TOLD, TOLD] }, {}, "ses_c: was told to its parent 2 times"],
  [
    "a child that is told of while it waits for callbacks of its own",
    {},
    {
      runs: [
        { ...RUN, runId: "run_c" },
        { ...RUN, runId: "run_d" },
      ],
    },
    "ses_c: was told to its parent with run_c, before it had settled",
  ],
  ["a callback in no run", { runs: [RUN] }, {}, "is part of 0 runs with an outcome"],
  [
    "a callback in two runs",
    { runs: [DELIVERING, { ...DELIVERING, runId: "run_3" }] },
    {},
    "is part of 2 runs with an outcome",
  ],
  ["a callback that a lost run has swallowed", { runs: [LOST] }, {}, "is part of 0 runs with an outcome"],
  [
    "a callback that is delivered again although nothing was lost",
    { notifications: [{ ...TOLD, deliveries: 2 }] },
    {},
    "counts 2 deliveries",
  ],
  [
    "a callback that names another run",
    { notifications: [{ ...TOLD, runId: "run_1" }] },
    {},
    "was not delivered by run_1",
  ],
  [
    "a callback that is given up too early",
    { runs: [LOST], notifications: [{ ...TOLD, state: "GIVEN_UP" }] },
    {},
    "was given up after 1 losses",
  ],
  [
    "a callback that waits although its parent may be resumed",
    { runs: [RUN], notifications: [{ ...TOLD, state: "WAITING", deliveries: 0 }] },
    {},
    "waits for nobody",
  ],
  [
    "a callback that stays bound",
    { runs: [LOST], notifications: [{ ...TOLD, state: "BOUND" }] },
    {},
    "is bound to run_2, which has ended",
  ],
  [
    "a run that tells of a child that did not settle",
    { runs: [RUN, DELIVERING], notifications: [] },
    { treeStopped: true },
    "run_2 tells of ses_c",
  ],
])("%s is a broken promise", (_, parent, child, words) => {
  expect(
    treeViolations([
      { ...PARENT, ...parent },
      { ...CHILD, ...child },
    ]).join("\n"),
  ).toContain(words);
});
