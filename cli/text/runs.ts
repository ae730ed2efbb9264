import { durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { ExecutorResult } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { Attempt, Exit, OnLost, Run } from "../../gen/agentrunner/v1/run_pb.ts";
import {
  FailureReason,
  FailureReasonSchema,
  InvocationMode,
  InvocationModeSchema,
  OnLost_Policy,
  OnLost_PolicySchema,
  RunState,
  RunStateSchema,
} from "../../gen/agentrunner/v1/run_pb.ts";
import { isFinalState } from "../../lib/protocol/final.ts";
import { OFFER_UNDER_WAY, REFUSED_BY } from "../../lib/protocol/pending.ts";
import { demandsText, fields, moment, objectText, styled } from "./fields.ts";
import type { Paint, Style } from "./format.ts";
import { ago, between, clean, clock, duration, shorten, word } from "./format.ts";
import { table } from "./table.ts";
import type { Cell, Column } from "./table.ts";
import { wrap } from "../../lib/width.ts";

const STATE_STYLES: Partial<Record<RunState, Style>> = {
  [RunState.COMPLETED]: "green",
  [RunState.FAILED]: "red",
  [RunState.STOPPED]: "yellow",
  [RunState.STOPPING]: "yellow",
  [RunState.RUNNING]: "cyan",
};

/** A state in its colour. */
export function stateCell(state: RunState): Cell {
  const text = word(RunStateSchema, state);
  const style = STATE_STYLES[state];
  return style === undefined ? text : [style, text];
}

const RUN_COLUMNS: readonly Column[] = [
  { title: "RUN", ids: true, keep: 9 },
  { title: "STATE", keep: 8 },
  { title: "SESSION", ids: true, min: 10, keep: 7 },
  { title: "PROFILE", min: 8, keep: 3 },
  { title: "RUNNER", keep: 2 },
  { title: "CREATED", keep: 6 },
  { title: "TOOK", keep: 5 },
  { title: "", min: 16, keep: 4 },
];

/** `ao runs ls`. */
export function runTable(runs: readonly Run[], nowMs: number, paint: Paint, columns = Infinity): string {
  const rows = runs.map((run): Cell[] => [
    run.runId,
    stateCell(run.state),
    run.sessionName || run.sessionId,
    profileOf(run),
    run.runnerId || "-",
    ago(run.createdAt, nowMs),
    took(run, nowMs) || "-",
    shorten(why(run.failure, run.message), 60),
  ]);
  return table(RUN_COLUMNS, rows, paint, columns);
}

/** A resume goes where its session's files are, which a run in a list does not name. */
function profileOf({ demands, mode }: Run): string {
  return demands?.executorProfile || (mode === InvocationMode.RESUME ? "session's" : "any");
}

function took(run: Run, nowMs: number): string {
  if (run.startedAt === undefined) return "";
  return run.endedAt === undefined ? duration(nowMs - timestampMs(run.startedAt)) : between(run.startedAt, run.endedAt);
}

/** `executor exit: exit code 3`: the reason as a word, and in words when there are any. */
export function why(failure: FailureReason, message: string): string {
  if (failure === FailureReason.UNSPECIFIED) return message;
  const reason = word(FailureReasonSchema, failure);
  return message === "" ? reason : `${reason}: ${message}`;
}

/**
 * The reasons of a pending run in one line: refusals, then what sums up the others, with what becomes of the run:
 * `refused by lnch_c: no; no runner matches: 2 runners (fails in 5 min): lnch_a lacks tag docker; lnch_b is full 2/2`.
 */
export function pendingText(reasons: readonly string[], limit = ""): string {
  const refusals = reasons.filter((reason) => reason.startsWith(REFUSED_BY));
  const [head, ...others] = reasons.slice(refusals.length);
  const end = limit === "" ? "" : ` (${limit})`;
  const summary = head === undefined ? [] : [`${head}${end}${others.length === 0 ? "" : `: ${others.join("; ")}`}`];
  return [...refusals, ...summary].join("; ");
}

/** Why a run is pending, and when it fails for want of a runner. */
export function whyPending({ pendingReasons, noMatchAt }: Run, nowMs: number): string {
  // Where a runner matches, as one that has just refused, the time without a match does not count.
  if (noMatchAt === undefined || pendingReasons.includes(OFFER_UNDER_WAY)) return pendingText(pendingReasons);
  // Whole seconds: 5 min, and not 4 min 59 s, of a limit that began this moment.
  const leftMs = Math.ceil((timestampMs(noMatchAt) - nowMs) / 1000) * 1000;
  return pendingText(pendingReasons, `fails in ${duration(leftMs)} unless a runner that matches registers`);
}

/** True when nobody needs to hear why a run is pending: it is being given to a runner. */
export function isUnderWay({ pendingReasons }: Run): boolean {
  return pendingReasons.every((reason) => reason === OFFER_UNDER_WAY);
}

/** Of a shorter wait nothing is said. */
const WAITED_MIN_MS = 1_000;

/**
 * State and age of a run: `pending 42 s`, `failed after 3.2 s`. A run that has ended is as old as its executor became, as TOOK of
 * `ao ps` says; what it waited before is told beside it.
 */
export function stateAge(run: Run, nowMs: number, paint: Paint): string {
  const [style, state] = styled(stateCell(run.state));
  return `${paint(style, state)} ${isFinalState(run.state) ? endedText(run) : openFor(run, nowMs)}`.trimEnd();
}

function openFor({ startedAt, claimedAt, createdAt }: Run, nowMs: number): string {
  const since = startedAt ?? claimedAt ?? createdAt;
  return since === undefined ? "" : duration(nowMs - timestampMs(since));
}

function endedText({ createdAt, claimedAt, startedAt, endedAt }: Run): string {
  const whole = between(createdAt, endedAt);
  if (createdAt === undefined || startedAt === undefined)
    return whole === "" ? "" : `after ${whole}${claimedAt === undefined ? ", before it was started" : ""}`;
  const waitedMs = timestampMs(startedAt) - timestampMs(createdAt);
  return `after ${between(startedAt, endedAt)}${waitedMs < WAITED_MIN_MS ? "" : ` (${whole} since it was created)`}`;
}

/** The line that says where a run stands and why: `pending 42 s — no runner matches: …`. */
export function stateLine(run: Run, nowMs: number, paint: Paint): string {
  const reason = run.state === RunState.PENDING ? whyPending(run, nowMs) : why(run.failure, run.message);
  return `${stateAge(run, nowMs, paint)}${reason === "" ? "" : ` — ${clean(reason)}`}`;
}

/** `ao runs get`. */
export function runPage(run: Run, nowMs: number, paint: Paint, columns = Infinity): string {
  const mode = word(InvocationModeSchema, run.mode);
  const lines = [
    wrap(`${paint("bold", run.runId)}  ${stateLine(run, nowMs, paint)}`, columns, "  "),
    "",
    fields(
      [
        ["session", run.sessionName === run.sessionId ? run.sessionId : `${run.sessionId}  ${run.sessionName}`],
        ["agent", run.agentName],
        ["mode", run.anyRunner ? `${mode}, any runner` : mode],
        ["demands", demandsText(run.demands)],
        ["directory", run.projectDir],
        ["runner", run.runnerId],
        ["created", moment(run.createdAt, nowMs)],
        ["claimed", moment(run.claimedAt, nowMs)],
        ["started", moment(run.startedAt, nowMs)],
        ["ended", moment(run.endedAt, nowMs)],
        ["exit", exitText(run.exit)],
        ["limits", limitsText(run)],
        ["on lost", onLostText(run.onLost)],
        ["parent", run.parentSessionId],
        ["metadata", objectText(run.metadata)],
        ["parameters", objectText(run.parameters)],
        ["request", run.requestId],
        ["prompt", shorten(run.prompt, 200)],
      ],
      paint,
      columns,
    ),
  ];
  if (run.attempts.length > 1 || run.attempts.some((it) => it.lateReport !== undefined || it.eventsMissing > 0n)) {
    lines.push("", attemptTable(run.attempts, paint, columns));
  }
  const result = resultText(run.result);
  if (result !== "") lines.push("", paint("bold", "result"), result);
  return lines.join("\n");
}

const ATTEMPT_COLUMNS: readonly Column[] = [
  { title: "ATTEMPT", keep: 9 },
  { title: "RUNNER", keep: 5 },
  { title: "OUTCOME", keep: 8 },
  { title: "CLAIMED", keep: 3 },
  { title: "TOOK", keep: 4 },
  { title: "EXIT", min: 10, keep: 6 },
  { title: "", min: 20, keep: 7, wraps: true },
];

function attemptTable(attempts: readonly Attempt[], paint: Paint, columns: number): string {
  const rows = attempts.map((attempt): Cell[] => [
    String(attempt.attempt),
    attempt.runnerId,
    attempt.outcome === RunState.UNSPECIFIED ? "active" : stateCell(attempt.outcome),
    clock(attempt.claimedAt),
    between(attempt.startedAt, attempt.endedAt) || "-",
    exitText(attempt.exit) || "-",
    [why(attempt.failure, attempt.message), missingText(attempt), lateText(attempt)].filter((s) => s !== "").join("; "),
  ]);
  return table(ATTEMPT_COLUMNS, rows, paint, columns);
}

function missingText({ eventsMissing }: Attempt): string {
  return eventsMissing === 0n ? "" : `${eventsMissing} ${eventsMissing === 1n ? "event" : "events"} missing`;
}

function lateText({ lateReport }: Attempt): string {
  if (lateReport === undefined) return "";
  const { state, receivedAt, message } = lateReport;
  return `too late, at ${clock(receivedAt)}, it reported ${word(RunStateSchema, state)}${message === "" ? "" : `: ${message}`}`;
}

function limitsText({ timeout, idleTimeout, lostAfter }: Run): string {
  const limits = [
    ["timeout", timeout],
    ["idle timeout", idleTimeout],
    ["lost after", lostAfter],
  ] as const;
  return limits.flatMap(([name, limit]) => (limit ? [`${name} ${duration(durationMs(limit))}`] : [])).join(" · ");
}

function onLostText(onLost: OnLost | undefined): string {
  // FAIL is what happens unasked.
  if (onLost === undefined || onLost.policy === OnLost_Policy.FAIL) return "";
  const policy = word(OnLost_PolicySchema, onLost.policy);
  return onLost.maxAttempts === 0 ? policy : `${policy}, at most ${onLost.maxAttempts} attempts`;
}

function exitText(exit: Exit | undefined): string {
  if (exit === undefined) return "";
  const end = exit.signal === "" ? (exit.code === undefined ? "" : `code ${exit.code}`) : exit.signal;
  return [end, exit.forced && "forced", exit.outputTruncated && "output truncated"].filter(Boolean).join(", ");
}

/** A result for people: its text, then its data as JSON. */
export function resultText(result: ExecutorResult | undefined): string {
  if (result === undefined) return "";
  const data = result.data === undefined ? "" : JSON.stringify(result.data, undefined, 2);
  return [result.text.trimEnd(), data].filter((part) => part !== "").join("\n");
}
