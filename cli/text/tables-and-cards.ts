import type { JsonObject } from "@bufbuild/protobuf";
import { durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { isFinalState } from "../../lib/final.ts";
import type { AgentBlueprint } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import type { ExecutorResult } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { Attempt, Demands, Exit, OnLost, Run } from "../../gen/agentrunner/v1/run_pb.ts";
import {
  FailureReason,
  FailureReasonSchema,
  InvocationModeSchema,
  OnLost_Policy,
  OnLost_PolicySchema,
  RunState,
  RunStateSchema,
} from "../../gen/agentrunner/v1/run_pb.ts";
import type { Runner } from "../../gen/agentrunner/v1/runner_pb.ts";
import { Runner_Presence, Runner_PresenceSchema } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { Session } from "../../gen/agentrunner/v1/session_pb.ts";
import { SessionStatus, SessionStatusSchema } from "../../gen/agentrunner/v1/session_pb.ts";
import type { Cell, Paint, Style } from "./format.ts";
import { ago, between, clean, clock, duration, shorten, table, word } from "./format.ts";

/*
 * The texts of `ao`: pure functions of messages and of the time. Lists are tables, single things are pages of
 * `name  value` lines without the empty ones. Ids are never cut, so that they can be copied.
 */

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

/** `ao runs ls`. */
export function runTable(runs: readonly Run[], nowMs: number, paint: Paint): string {
  const rows = runs.map((run): Cell[] => [
    run.runId,
    stateCell(run.state),
    run.sessionName || run.sessionId,
    run.demands?.executorProfile || "any",
    run.runnerId || "-",
    ago(run.createdAt, nowMs),
    took(run, nowMs) || "-",
    shorten(why(run.failure, run.message), 60),
  ]);
  return table(["RUN", "STATE", "SESSION", "PROFILE", "RUNNER", "CREATED", "TOOK", ""], rows, paint);
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
 * The reasons of a pending run in one line: the first is the head of the others (`coordinator/core/match.ts`):
 * `no runner matches: 2 runners: lnch_a lacks tag docker; lnch_b is full 2/2`.
 */
export function pendingText([head, ...reasons]: readonly string[]): string {
  if (head === undefined) return "";
  return reasons.length === 0 ? head : `${head}: ${reasons.join("; ")}`;
}

/** State and age of a run: `pending 42 s`, `failed after 3.2 s`. */
export function stateAge(run: Run, nowMs: number, paint: Paint): string {
  const [style, state] = styled(stateCell(run.state));
  const since = (from: Run["createdAt"], to: Run["createdAt"]) =>
    from === undefined ? "" : duration((to === undefined ? nowMs : timestampMs(to)) - timestampMs(from));
  const age = isFinalState(run.state)
    ? `after ${since(run.createdAt, run.endedAt)}`
    : since(run.startedAt ?? run.claimedAt ?? run.createdAt, undefined);
  return `${paint(style, state)} ${age}`;
}

/** The line that says where a run stands and why: `pending 42 s — no runner matches: …`. */
export function stateLine(run: Run, nowMs: number, paint: Paint): string {
  const reason = run.state === RunState.PENDING ? pendingText(run.pendingReasons) : why(run.failure, run.message);
  return `${stateAge(run, nowMs, paint)}${reason === "" ? "" : ` — ${clean(reason)}`}`;
}

const styled = (cell: Cell): readonly [Style, string] => (typeof cell === "string" ? ["bold", cell] : cell);

/** `ao runs get`. */
export function runPage(run: Run, nowMs: number, paint: Paint): string {
  const mode = word(InvocationModeSchema, run.mode);
  const lines = [
    `${paint("bold", run.runId)}  ${stateLine(run, nowMs, paint)}`,
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
    ),
  ];
  if (run.attempts.length > 1 || run.attempts.some((attempt) => attempt.lateReport !== undefined)) {
    lines.push("", attemptTable(run.attempts, paint));
  }
  const result = resultText(run.result);
  if (result !== "") lines.push("", paint("bold", "result"), result);
  return lines.join("\n");
}

/** `name  value` lines, aligned; lines without a value are left out. */
export function fields(pairs: readonly (readonly [string, string])[], paint: Paint): string {
  const rows = pairs.filter(([, value]) => value !== "").map(([name, value]): Cell[] => [["dim", name], value]);
  return table(undefined, rows, paint);
}

function attemptTable(attempts: readonly Attempt[], paint: Paint): string {
  const rows = attempts.map((attempt): Cell[] => [
    String(attempt.attempt),
    attempt.runnerId,
    attempt.outcome === RunState.UNSPECIFIED ? "active" : stateCell(attempt.outcome),
    clock(attempt.claimedAt),
    between(attempt.startedAt, attempt.endedAt) || "-",
    exitText(attempt.exit) || "-",
    [why(attempt.failure, attempt.message), missingText(attempt), lateText(attempt)].filter((s) => s !== "").join("; "),
  ]);
  return table(["ATTEMPT", "RUNNER", "OUTCOME", "CLAIMED", "TOOK", "EXIT", ""], rows, paint);
}

function missingText({ eventsMissing }: Attempt): string {
  return eventsMissing === 0n ? "" : `${eventsMissing} events missing`;
}

function lateText({ lateReport }: Attempt): string {
  if (lateReport === undefined) return "";
  const { state, receivedAt, message } = lateReport;
  return `too late, at ${clock(receivedAt)}, it reported ${word(RunStateSchema, state)}${message === "" ? "" : `: ${message}`}`;
}

function moment(time: Run["createdAt"], nowMs: number): string {
  return time === undefined ? "" : `${new Date(timestampMs(time)).toISOString()}  ${ago(time, nowMs)}`;
}

function demandsText(demands: Demands | undefined): string {
  if (demands === undefined) return "";
  const { executorProfile, hostname, projectDir, tags } = demands;
  return [
    executorProfile && `profile ${executorProfile}`,
    hostname && `host ${hostname}`,
    projectDir && `directory ${projectDir}`,
    tags.length > 0 && `tags ${tags.join(", ")}`,
  ]
    .filter(Boolean)
    .join(" · ");
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

function objectText(object: JsonObject | undefined): string {
  return object === undefined ? "" : shorten(JSON.stringify(object), 200);
}

/** A result for people: its text, then its data as JSON. */
export function resultText(result: ExecutorResult | undefined): string {
  if (result === undefined) return "";
  const data = result.data === undefined ? "" : JSON.stringify(result.data, undefined, 2);
  return [result.text.trimEnd(), data].filter((part) => part !== "").join("\n");
}

/** `ao blueprints get`. */
export function blueprintPage(blueprint: AgentBlueprint, paint: Paint): string {
  const { name, enabled, description, demands, tags, mcpServers, systemPrompt } = blueprint;
  const servers = Object.entries(mcpServers).map(([server, { type, url, command }]): [string, string] => [
    `mcp ${server}`,
    `${type}  ${url || command}`,
  ]);
  const facts = fields(
    [
      ["description", description],
      ["demands", demandsText(demands)],
      ["tags", tags.join(", ")],
      ["parameters", objectText(blueprint.parametersSchema)],
      ["result", objectText(blueprint.outputSchema)],
      ...servers,
    ],
    paint,
  );
  const head = `${paint("bold", name)}  ${enabled ? paint("green", "enabled") : paint("yellow", "disabled")}`;
  const prompt = systemPrompt.trimEnd().split("\n").map(clean).join("\n");
  return [head, facts, prompt].filter((part) => part !== "").join("\n\n");
}

/** `ao runners`. */
export function runnerTable(runners: readonly Runner[], nowMs: number, paint: Paint): string {
  const rows = runners.map((runner): Cell[] => [
    runner.runnerId,
    presenceCell(runner),
    `${runner.activeRuns}/${runner.maxConcurrentRuns}`,
    runner.executorProfile,
    runner.hostname,
    runner.projectDir,
    runner.tags.join(", ") || "-",
    ago(runner.lastHeardAt, nowMs),
    runner.name,
  ]);
  return table(["RUNNER", "STATE", "RUNS", "PROFILE", "HOST", "DIRECTORY", "TAGS", "HEARD", "NAME"], rows, paint);
}

function presenceCell(runner: Runner): Cell {
  const text = word(Runner_PresenceSchema, runner.presence) + (runner.draining ? ", draining" : "");
  if (runner.presence !== Runner_Presence.ONLINE) return ["red", text];
  return [runner.draining ? "yellow" : "green", text];
}

/** `ao runners get`. */
export function runnerPage(runner: Runner, nowMs: number, paint: Paint): string {
  const [style, presence] = styled(presenceCell(runner));
  const { executor, eventLoopLag } = runner;
  return [
    `${paint("bold", runner.runnerId)}  ${paint(style, presence)}`,
    "",
    fields(
      [
        ["name", runner.name],
        ["runs", `${runner.activeRuns} of at most ${runner.maxConcurrentRuns}`],
        ["profile", runner.executorProfile],
        ["executor", [executor?.type, executor?.command].filter(Boolean).join("  ")],
        ["portable", executor?.portable === true ? "yes: sessions can move to another runner of the profile" : ""],
        ["host", runner.hostname],
        ["directory", runner.projectDir],
        ["tags", runner.tags.join(", ") + (runner.requireMatchingTags ? " (a run must name one)" : "")],
        ["registered", moment(runner.registeredAt, nowMs)],
        ["heard", moment(runner.lastHeardAt, nowMs)],
        ["loop lag", eventLoopLag === undefined ? "" : duration(durationMs(eventLoopLag))],
        ["boot", runner.bootId],
      ],
      paint,
    ),
  ].join("\n");
}

const STATUS_STYLES: Partial<Record<SessionStatus, Style>> = {
  [SessionStatus.RUNNING]: "cyan",
  [SessionStatus.STOPPING]: "yellow",
  [SessionStatus.IDLE]: "green",
  [SessionStatus.FAILED]: "red",
  [SessionStatus.STOPPED]: "yellow",
};

function statusCell(status: SessionStatus): Cell {
  const style = STATUS_STYLES[status];
  const text = word(SessionStatusSchema, status);
  return style === undefined ? text : [style, text];
}

/** `ao sessions`. */
export function sessionTable(sessions: readonly Session[], nowMs: number, paint: Paint): string {
  const rows = sessions.map((session): Cell[] => [
    session.sessionId,
    statusCell(session.status),
    session.sessionName === session.sessionId ? "-" : session.sessionName,
    session.activeRunId || session.lastRunId || "-",
    session.runnerId || "-",
    ago(session.updatedAt, nowMs),
  ]);
  return table(["SESSION", "STATUS", "NAME", "LAST RUN", "RUNNER", "UPDATED"], rows, paint);
}

/** `ao sessions get`. */
export function sessionPage(session: Session, nowMs: number, paint: Paint): string {
  const [style, status] = styled(statusCell(session.status));
  return [
    `${paint("bold", session.sessionId)}  ${paint(style, status)}`,
    "",
    fields(
      [
        ["name", session.sessionName === session.sessionId ? "" : session.sessionName],
        ["agent", session.agentName],
        ["active run", session.activeRunId],
        ["last run", session.lastRunId],
        ["runner", session.runnerId],
        ["profile", session.executorProfile],
        ["directory", session.projectDir],
        ["executor's id", session.executorSessionId],
        ["parent", session.parentSessionId],
        ["created", moment(session.createdAt, nowMs)],
        ["updated", moment(session.updatedAt, nowMs)],
        ["metadata", objectText(session.metadata)],
      ],
      paint,
    ),
  ].join("\n");
}
