import type { Run } from "../gen/agentrunner/v1/run_pb.ts";
import { RunStateSchema } from "../gen/agentrunner/v1/run_pb.ts";
import type { FindRunsRequest } from "../gen/agentrunner/v1/run_service_pb.ts";
import type { Session } from "../gen/agentrunner/v1/session_pb.ts";
import { EXIT } from "../lib/exit-codes.ts";
import { isWholeId } from "../lib/ids.ts";
import type { Cli } from "./cli.ts";
import { CliError, present, usage } from "./errors.ts";
import { here, requestPrefix } from "./here.ts";
import { clean, word } from "./text/format.ts";

/*
 * What a person may write where a run or a session is meant. Both kinds of verbs take the same: where a run is meant, a
 * session stands for its newest run; where a session is meant, a run stands for its session.
 */

/** Help of an operand that means a run. */
export const RUN_OPERAND = "name of its session, id or beginning of an id (run_…, ses_…), or @last";
/** Help of an operand that means a session. */
export const SESSION_OPERAND = "name, id or beginning of an id (ses_…, run_…), or @last";

/** A reference, by its form alone. */
export type Ref =
  /** What was started last from this directory. */
  | { readonly type: "last" }
  /** An id, or the beginning of one. */
  | { readonly type: "run-id" | "session-id"; readonly id: string; readonly whole: boolean }
  | { readonly type: "name"; readonly name: string };

/** @throws CliError (usage) for an empty text. */
export function parseRef(text: string): Ref {
  if (text === "") throw usage("the name of the session is empty");
  if (text === "@last") return { type: "last" };
  if (text.startsWith("run_")) return { type: "run-id", id: text, whole: isWholeId("run", text) };
  if (text.startsWith("ses_")) return { type: "session-id", id: text, whole: isWholeId("ses", text) };
  return { type: "name", name: text };
}

/** The id of the run that a text means. @throws CliError when it means none, or several. */
export async function runIdOf(cli: Cli, text: string): Promise<string> {
  const ref = parseRef(text);
  if (ref.type === "run-id" && ref.whole) return ref.id;
  if (ref.type === "name") return (await namedSession(cli, ref.name)).lastRunId;
  return (await theRun(cli, ref)).runId;
}

/** The id of the session that a text means. @throws CliError when it means none, or several. */
export async function sessionIdOf(cli: Cli, text: string): Promise<string> {
  const ref = parseRef(text);
  if (ref.type === "session-id" && ref.whole) return ref.id;
  if (ref.type === "name") return (await namedSession(cli, ref.name)).sessionId;
  return (await theRun(cli, ref)).sessionId;
}

/** The session that a text means. @throws CliError when it means none, or several. */
export async function sessionOf(cli: Cli, text: string): Promise<Session> {
  const ref = parseRef(text);
  if (ref.type === "name") return namedSession(cli, ref.name);
  const { session } = await cli.sessions.getSession({ sessionId: await sessionIdOf(cli, text) });
  return present(session, "session");
}

async function namedSession(cli: Cli, sessionName: string): Promise<Session> {
  return present((await cli.sessions.getSession({ sessionName })).session, "session");
}

/** Runs that are shown of those that an abbreviation may mean. */
const MAX_SHOWN = 10;

async function theRun(cli: Cli, ref: Exclude<Ref, { type: "name" }>): Promise<Run> {
  const { runs, more } = await cli.runs.findRuns({ prefix: prefixOf(ref), limit: ref.type === "last" ? 1 : MAX_SHOWN });
  const [run, ...others] = runs;
  if (run === undefined) throw missing(ref);
  if (ref.type === "last" || (others.length === 0 && !more)) return run;
  throw ambiguous(ref, runs, more);
}

function prefixOf(ref: Exclude<Ref, { type: "name" }>): FindRunsRequest["prefix"] {
  if (ref.type === "last") return { case: "requestId", value: requestPrefix(here()) };
  return { case: ref.type === "run-id" ? "runId" : "sessionId", value: ref.id };
}

function missing(ref: Exclude<Ref, { type: "name" }>): CliError {
  if (ref.type === "last") {
    const { directory } = here();
    const text = `no run that you started from ${directory || "this directory"} is left here`;
    return new CliError(EXIT.notFound, text, "`ao ps` lists the runs of everybody");
  }
  const [what, list] = ref.type === "run-id" ? ["run", "`ao ps`"] : ["session", "`ao sessions`"];
  return new CliError(EXIT.notFound, `no ${what} has an id that begins with ${ref.id}`, `${list} lists what there is`);
}

function ambiguous(ref: Exclude<Ref, { type: "name" | "last" }>, runs: readonly Run[], more: boolean): CliError {
  const whats = ref.type === "run-id" ? "runs" : "sessions";
  const count = more ? `more than ${runs.length}` : String(runs.length);
  const lines = runs.map((run) => {
    const { runId, sessionId, sessionName, state } = run;
    const id = ref.type === "run-id" ? runId : sessionId;
    const name = sessionName === sessionId ? "" : `  ${clean(sessionName)}`;
    return `  ${id}${name}  ${word(RunStateSchema, state)}`;
  });
  if (more) lines.push("  …");
  return usage([`${ref.id} may mean ${count} ${whats}:`, ...lines].join("\n"), "write more of the id");
}
