import type { ExecutorEvent } from "../gen/agentrunner/v1/executor_pb.ts";
import { ExecutorOutput_Stream } from "../gen/agentrunner/v1/executor_pb.ts";
import { FailureReason } from "../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind } from "../gen/agentrunner/v1/runner_service_pb.ts";
import type { ExecutorOutcome } from "../runner/execution/supervisor.ts";
import type { ModelRequest } from "./model-stub/server.ts";
import { fail, pass, skip } from "./points.ts";
import type { Verdict } from "./points.ts";

/*
 * What an executor did becomes pass, fail or skip. Nothing here looks at a clock or a process: a `Seen` says it all.
 */

/** What was seen of one run. */
export interface Seen {
  readonly outcome: Pick<ExecutorOutcome, "kind" | "failure" | "message" | "exit" | "result" | "executorSessionId">;
  readonly events: readonly ExecutorEvent[];
  /** To the model, while it ran. */
  readonly requests: readonly Pick<ModelRequest, "turns" | "tools" | "reply">[];
  /** Whether it was stopped before it ended. */
  readonly stopped: boolean;
  /** From the stop to the end; 0 without a stop. */
  readonly endedAfterMs: number;
  readonly durationMs: number;
}

/** The run ended well. Otherwise what it came to, in words. */
export function completed({ outcome }: Seen): Verdict | undefined {
  return outcome.kind === Report_Kind.COMPLETED ? undefined : fail(howItEnded(outcome));
}

/** @param word what the model was told to say; undefined when it has no model. */
export function judgeStart(seen: Seen, word: string | undefined): Verdict {
  const bad = completed(seen);
  if (bad !== undefined) return bad;
  const { result } = seen.outcome;
  if (word === undefined)
    return pass(result === undefined ? "exit code 0, no result" : `result ${shown(resultText(seen))}`);
  if (resultText(seen).includes(word))
    return pass(`${count(seen.requests.length, "request")} to the model, its answer is the result`);
  if (result === undefined) return fail(`the model said ${word}, and there is no result`);
  return fail(`the model said ${word}, and the result is ${shown(resultText(seen))}`);
}

/** The session came before all that a run has to show for itself, and while the model was silent. */
export function judgeSession(seen: Seen, hasModel: boolean): Verdict {
  const at = seen.events.findIndex(({ event }) => event.case === "session");
  if (at === -1) {
    if (!hasModel) return skip("it names no conversation");
    return fail("no session event while the model was silent: a run that is cut short there cannot be resumed");
  }
  const before = seen.events.slice(0, at).find(({ event }) => SHOWN.has(event.case ?? ""));
  if (before !== undefined) return fail(`a ${before.event.case} event came before the session`);
  return pass(`${shown(sessionOf(seen))}, ${hasModel ? "before the model answered" : "first of all"}`);
}

const SHOWN = new Set(["message", "tool", "result"]);

export function judgeExit({ outcome, durationMs }: Seen): Verdict {
  if (outcome.exit.forced) return fail("it was still there 10 s after its result, and had to be killed");
  if (outcome.exit.outputTruncated)
    return fail("it left processes in its group, or an open stdout, that had to be ended");
  return pass(`exit code ${outcome.exit.code} after ${seconds(durationMs)}`);
}

/**
 * A later run of the same conversation.
 * @param earlier a word of an earlier prompt, which the model has to see again; undefined when it has no model.
 */
export function judgeResume(first: Seen, second: Seen, earlier: string | undefined): Verdict {
  const bad = completed(second);
  if (bad !== undefined) return bad;
  const [before, after] = [sessionOf(first), sessionOf(second)];
  if (before !== "" && after !== "" && before !== after)
    return fail(`the session was ${shown(before)}, and is ${shown(after)} now`);
  if (earlier === undefined) return pass(before === "" ? "it names no conversation" : `session ${shown(before)} again`);
  if (second.requests.length === 0) return fail("no request came to the model");
  if (!second.requests.some((request) => hasText(request, earlier)))
    return fail("the model did not see the earlier prompt again: it is another conversation");
  return pass(`the model saw the earlier prompt again${before === "" ? "" : `, in ${shown(before)}`}`);
}

/** It was given no invocation. It must not succeed, and must say what is wrong. */
export function judgeRefusal(seen: Seen): Verdict {
  const { outcome } = seen;
  if (outcome.failure === FailureReason.TIMEOUT) return fail("it did not end: it waits for more than the end of stdin");
  if (outcome.kind === Report_Kind.COMPLETED) return fail("exit code 0, as if it had done something");
  const words = stderrOf(seen).trim();
  const end = `exit code ${outcome.exit.code}`;
  if (outcome.exit.signal !== "") return fail(`ended by ${outcome.exit.signal}`);
  return words === "" ? fail(`${end}, and nothing on stderr`) : pass(`${end}: ${shown(lastLine(words))}`);
}

/** The prompt came to the model, or to whoever reads the run's events, byte for byte. */
export function judgeExactPrompt(seen: Seen, prompt: string, hasModel: boolean): Verdict {
  if (hasModel || completed(seen) !== undefined) return judgePrompt(seen, prompt, hasModel);
  if ([...messagesBy(seen, "user"), resultText(seen)].some((text) => text.includes(prompt))) return unchanged(prompt);
  return skip("it does not repeat its prompt, and asks no model");
}

/** The run ended well, and the model, if there is one, got the prompt. */
export function judgePrompt(seen: Seen, prompt: string, hasModel: boolean): Verdict {
  const bad = completed(seen);
  if (bad !== undefined) return bad;
  if (!hasModel) return pass(`exit code 0 after ${count(Buffer.byteLength(prompt), "byte")}`);
  const texts = userTexts(seen);
  if (texts.some((text) => text.includes(prompt))) return unchanged(prompt);
  if (texts.length === 0) return fail("no request came to the model");
  return fail(`the model got another text: ${difference(prompt, texts)}`);
}

function unchanged(prompt: string): Verdict {
  return pass(`${count(Buffer.byteLength(prompt), "byte")}, unchanged`);
}

/** Where the text that has most of the prompt parts with it. */
function difference(prompt: string, texts: readonly string[]): string {
  const trimmed = prompt.trimEnd();
  if (texts.some((text) => text.includes(trimmed))) return "the line end at its end is missing";
  let best = { at: 0, found: "" };
  for (const text of texts) {
    const from = text.indexOf(prompt.slice(0, 8));
    if (from === -1) continue;
    let at = 0;
    while (at < prompt.length && prompt[at] === text[from + at]) at += 1;
    if (at >= best.at) best = { at, found: text.slice(from + at, from + at + 20) };
  }
  if (best.at === 0) return `nothing that begins with ${shown(prompt.slice(0, 8))}`;
  return `after ${best.at} characters ${shown(best.found)} instead of ${shown(prompt.slice(best.at, best.at + 20))}`;
}

/** The model's provider refused, was overloaded or broke off. */
export function judgeModelError(seen: Seen): Verdict {
  const { outcome, requests } = seen;
  if (requests.length === 0) return fail(`no request came to the model; ${howItEnded(outcome)}`);
  if (outcome.kind === Report_Kind.COMPLETED)
    return fail(`COMPLETED with ${shown(resultText(seen))}, as if the model had answered`);
  const tried = count(requests.length, "request");
  if (outcome.failure === FailureReason.TIMEOUT) {
    const status = statusesOf(seen).at(-1);
    const went = `still trying after ${seconds(seen.durationMs)}, ${tried}`;
    return status === undefined ? fail(`${went}, and says nothing`) : pass(`${went}; it says: ${shown(status)}`);
  }
  const words = lastLine(stderrOf(seen).trim());
  if (words === "") return fail(`${howItEnded(outcome)}, without a word on stderr`);
  return pass(`exit code ${outcome.exit.code} after ${tried}: ${shown(words)}`);
}

/**
 * It was stopped.
 * @param reached what was waited for before the stop, in words.
 */
export function judgeStop(seen: Seen, reached: string, { graceful }: { readonly graceful: boolean }): Verdict {
  const { outcome, endedAfterMs } = seen;
  if (!seen.stopped) {
    if (outcome.kind === Report_Kind.COMPLETED) return skip(`it had ended before ${reached}`);
    return fail(`it never came to ${reached}: ${howItEnded(outcome)}`);
  }
  if (outcome.kind !== Report_Kind.STOPPED) return fail(`the runner would call it ${howItEnded(outcome)}`);
  const killed = outcome.exit.signal === "SIGKILL";
  if (graceful && killed) return fail(`SIGTERM did not end it within ${seconds(endedAfterMs)}: SIGKILL did`);
  const how = outcome.exit.signal === "" ? `exit code ${outcome.exit.code}` : outcome.exit.signal;
  return pass(`${how}, ${seconds(endedAfterMs)} after the stop`);
}

/** It gave its result and was kept from exiting. */
export function judgeHang(seen: Seen): Verdict {
  const bad = completed(seen);
  if (bad !== undefined) return bad;
  if (!seen.outcome.exit.forced) return pass("it exits faster than it can be kept");
  if (seen.outcome.result === undefined) return fail("its result is lost");
  return pass("killed, COMPLETED, the result is kept");
}

/** A tool of the agent was at work when the run was stopped. */
export function judgeToolStop(seen: Seen, left: readonly string[]): Verdict {
  if (!seen.stopped) return fail(`no tool process was seen: ${whyNoTool(seen)}`);
  if (left.length > 0) return fail(`still there after the stop: ${left.join(", ")}`);
  return judgeStop(seen, "its tool", { graceful: false });
}

/** A tool of the agent left a process behind, and the agent's turn ended. */
export function judgeToolBackground(seen: Seen, wasSeen: boolean, left: readonly string[]): Verdict {
  const bad = completed(seen);
  if (bad !== undefined) return bad;
  if (!wasSeen) return fail(`no tool process was seen: ${whyNoTool(seen)}`);
  if (left.length > 0) return fail(`still there after the end: ${left.join(", ")}`);
  return pass(`ended after ${seconds(seen.durationMs)}, and its tool's process with it`);
}

/** What an MCP server was asked. */
export interface ToolCall {
  readonly server: "orchestrator" | "blueprint";
  readonly tool: string;
  readonly args: Readonly<Record<string, unknown>>;
  readonly headers: Readonly<Record<string, string>>;
}

/** A tool of an MCP server was to be called, with these headers. */
export function judgeToolCall(
  seen: Seen,
  calls: readonly ToolCall[],
  tool: string,
  headers: ToolCall["headers"],
): Verdict {
  const call = calls.find((one) => one.tool === tool);
  if (call === undefined) return fail(`${tool} was not called: ${completed(seen)?.detail ?? whyNoTool(seen)}`);
  const wrong = wrongHeader(call.headers, headers);
  if (wrong !== undefined) return fail(`${tool} was called with ${wrong}`);
  return completed(seen) ?? pass(`${tool} was called, with ${Object.keys(headers).join(" and ")}`);
}

/** An MCP server was to be asked for its tools, with these headers. Whether the model is shown them is the agent's matter. */
export function judgeHeaders(
  seen: Seen,
  visits: readonly ToolCall["headers"][],
  headers: ToolCall["headers"],
): Verdict {
  if (visits.length === 0) return fail(completed(seen)?.detail ?? "nobody came to the server");
  const wrong = visits.map((visit) => wrongHeader(visit, headers)).find((one) => one !== undefined);
  if (wrong !== undefined) return fail(`a request came with ${wrong}`);
  return completed(seen) ?? pass(`${count(visits.length, "request")}, each with ${Object.keys(headers).join(" and ")}`);
}

function wrongHeader(sent: ToolCall["headers"], wanted: ToolCall["headers"]): string | undefined {
  const name = Object.keys(wanted).find((name) => sent[name] !== wanted[name]);
  if (name === undefined) return undefined;
  return `the header ${name} ${sent[name] === undefined ? "missing" : shown(sent[name])}`;
}

function whyNoTool(seen: Seen): string {
  const said = seen.requests.flatMap(({ reply }) => (reply.type === "text" ? [reply.text] : []));
  const refused = said.find((text) => /^(NOT-OFFERED|no tools|SCRIPT-ERROR)/.test(text));
  if (refused !== undefined) return shown(refused);
  const answers = seen.requests.flatMap(({ turns }) =>
    turns.flatMap(({ who, texts }) => (who === "tool" ? texts : [])),
  );
  const last = answers.at(-1);
  return last === undefined ? howItEnded(seen.outcome) : `the tool answered ${shown(last)}`;
}

/** @param found processes that were still there. @param ended by run, those that the runner had to end. */
export function judgeLeft(found: readonly string[], ended: readonly string[]): Verdict {
  if (found.length > 0) return fail(found.join("; "));
  return ended.length === 0 ? pass("none") : pass(`none; the runner had to end ${ended.join("; ")}`);
}

export function judgeHome(changes: readonly string[]): Verdict {
  if (changes.length === 0) return pass("every file is as it was");
  const more = changes.length > 5 ? `, and ${changes.length - 5} more` : "";
  return fail(changes.slice(0, 5).join(", ") + more);
}

/** Whether the model was asked something in which the word stands. */
export function hasText({ turns }: Pick<ModelRequest, "turns">, word: string): boolean {
  return turns.some(({ texts }) => texts.some((text) => text.includes(word)));
}

/** The executor's own id of the conversation; empty when it said none. */
export function sessionOf({ outcome }: Seen): string {
  return outcome.executorSessionId;
}

function userTexts({ requests }: Seen): string[] {
  return requests.flatMap(({ turns }) => turns.flatMap(({ who, texts }) => (who === "user" ? texts : [])));
}

function messagesBy({ events }: Seen, role: string): string[] {
  return events.flatMap(({ event }) =>
    event.case === "message" && event.value.role === role ? [event.value.text] : [],
  );
}

function statusesOf({ events }: Seen): string[] {
  return events.flatMap(({ event }) => (event.case === "status" ? [event.value.text] : []));
}

function stderrOf({ events }: Seen): string {
  return events
    .flatMap(({ event }) =>
      event.case === "output" && event.value.stream === ExecutorOutput_Stream.STDERR ? [event.value.text] : [],
    )
    .join("");
}

function resultText({ outcome }: Seen): string {
  const { result } = outcome;
  if (result === undefined) return "";
  return result.text === "" && result.data !== undefined ? JSON.stringify(result.data) : result.text;
}

const NAMES: Readonly<Record<Seen["outcome"]["kind"], string>> = {
  [Report_Kind.COMPLETED]: "COMPLETED",
  [Report_Kind.FAILED]: "FAILED",
  [Report_Kind.STOPPED]: "STOPPED",
  [Report_Kind.NOT_STARTED]: "not started",
};

function howItEnded({ kind, message }: Seen["outcome"]): string {
  return message === "" ? NAMES[kind] : shortened(message, 400);
}

function lastLine(text: string): string {
  return text.split("\n").at(-1) ?? "";
}

function shown(text: string): string {
  return JSON.stringify(shortened(text, 160));
}

function shortened(text: string, max: number): string {
  return text.length > max ? `${text.slice(0, max)}…` : text;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}
