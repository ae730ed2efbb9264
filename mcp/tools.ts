import type { JsonObject } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { z } from "zod";
import { stopRuns } from "../client/stop-runs.ts";
import { InvocationMode, RunStateSchema } from "../gen/agentrunner/v1/run_pb.ts";
import { SessionStatus } from "../gen/agentrunner/v1/session_pb.ts";
import { jsonObject, schemaOf } from "./arguments.ts";
import type { ObjectSchema } from "./arguments.ts";
import type { ToolCaller } from "./caller.ts";
import { ToolError } from "./errors.ts";
import { refuseOwn, sessionId, sessionIds, sessionName, sessionNames, sessionOf } from "./session-ref.ts";
import type { SessionRef } from "./session-ref.ts";
import { begin, MODES } from "./start.ts";
import {
  blueprintView,
  endView,
  facts,
  treeView,
  pageOf,
  RESULT_SHOWN_CHARS,
  runView,
  sessionView,
  word,
} from "./views.ts";
import { waitForSessions } from "./wait-for-sessions.ts";

/** One tool: what a model reads of it, what it takes, and what it does. */
export interface Tool<Input extends z.ZodObject = z.ZodObject> {
  readonly name: string;
  readonly description: string;
  readonly input: Input;
  /** What it takes, as clients are told. */
  readonly schema: ObjectSchema;
  /** As MCP annotates tools. */
  readonly hints: { readonly readOnlyHint?: boolean; readonly destructiveHint?: boolean };
  /** @throws ToolError and ConnectError, which become the tool's error. */
  readonly call: (args: z.output<Input>, caller: ToolCaller, signal: AbortSignal) => Promise<JsonObject>;
}

const READS = { readOnlyHint: true };
const STARTS = { destructiveHint: false };
const DESTROYS = { destructiveHint: true };

const BLUEPRINTS_PAGE = 25;
const SESSIONS_PAGE = 50;
const RESULT_MAX_CHARS = 100_000;

const pageToken = z.string().max(256).optional().describe("`next_page_token` of the page before.");
const mode = z
  .enum(MODES)
  .default("sync")
  .describe(
    "sync waits for the result, at most 45 s; the agent works on when that is over, and when the call is cut off or cancelled. " +
      "async_poll returns at once; wait_for_agent_sessions gets the result. " +
      "async_callback returns at once; end your turn, and you are resumed with the result: the only mode that holds no slot.",
  );
const timeoutSeconds = z.int().min(1).max(604_800).optional().describe("Stops the agent after this long.");
const requestId = z
  .string()
  .min(1)
  .max(64)
  .optional()
  .describe(
    "A name for this start. A call with the same name and content starts nothing twice: repeat it after a call that was cut off.",
  );

/** The tools, in the order in which models are shown them. */
export const TOOLS: readonly Tool[] = [
  tool({
    name: "list_agent_blueprints",
    description:
      "Lists the kinds of agents that can be started, with what they are for and the parameters they take. " +
      "Give the name of one to start_agent_session as agent_name.",
    input: z.object({ page_token: pageToken }),
    hints: READS,
    async call({ page_token = "" }, { services, tags }, signal) {
      const page = await services.blueprints.listBlueprints(
        { tags: [...tags], pageSize: BLUEPRINTS_PAGE, pageToken: page_token },
        { signal },
      );
      return {
        blueprints: page.blueprints.map(blueprintView),
        ...facts({ next_page_token: page.nextPageToken, broken: page.broken.map(({ name }) => name) }),
      };
    },
  }),
  tool({
    name: "start_agent_session",
    description:
      "Starts an agent in a session of its own and gives it a prompt. Returns its session_id, which every other tool " +
      "takes. `next` in the answer says what to do next.",
    input: z.object({
      agent_name: z.string().max(60).optional().describe("Blueprint of the agent. Default: none, a plain agent."),
      prompt: z.string().optional().describe("What it is to do. It knows nothing but this and its blueprint."),
      parameters: jsonObject.optional().describe("Parameters, when the blueprint has a parameters_schema."),
      mode,
      session_name: z.string().min(1).max(128).optional().describe("A name for people; must not exist yet."),
      project_dir: z.string().max(4_096).optional().describe("Absolute directory to work in. Default: the runner's."),
      executor_profile: z.string().max(256).optional().describe("Only runners with this executor profile."),
      tags: z.array(z.string().min(1).max(128)).max(64).default([]).describe("Only runners that have all these tags."),
      timeout_seconds: timeoutSeconds,
      request_id: requestId,
    }),
    hints: STARTS,
    call: (args, caller, signal) =>
      begin(
        caller,
        {
          mode: InvocationMode.START,
          agentName: args.agent_name ?? "",
          ...textOf(args),
          sessionName: args.session_name ?? "",
          projectDir: args.project_dir ?? "",
          demands: { executorProfile: args.executor_profile ?? "", tags: [...new Set(args.tags)] },
          ...timeoutOf(args.timeout_seconds),
        },
        { mode: args.mode, requestId: args.request_id },
        signal,
      ),
  }),
  tool({
    name: "resume_agent_session",
    description:
      "Gives a further prompt to an agent that has ended its turn, failed or was stopped; it remembers what came before. " +
      "While it is still busy the prompt waits for its turn.",
    input: z.object({
      session_id: sessionId,
      session_name: sessionName,
      prompt: z.string().optional().describe("What it is to do now."),
      parameters: jsonObject.optional().describe("Parameters instead, when its blueprint has a parameters_schema."),
      mode,
      timeout_seconds: timeoutSeconds,
      request_id: requestId,
    }),
    hints: STARTS,
    async call(args, caller, signal) {
      const sessionId = await sessionOf(args, caller, signal);
      refuseOwn(caller, sessionId, "end your turn instead of resuming it");
      const request = { mode: InvocationMode.RESUME, sessionId, ...textOf(args) };
      return begin(
        caller,
        { ...request, ...timeoutOf(args.timeout_seconds) },
        { mode: args.mode, requestId: args.request_id },
        signal,
      );
    },
  }),
  tool({
    name: "get_agent_session_status",
    description:
      "Says where a session stands: pending, running, stopping, idle (its turn completed), failed or stopped; and while a " +
      "run of it waits, why.",
    input: z.object({ session_id: sessionId, session_name: sessionName }),
    hints: READS,
    async call(args, caller, signal) {
      const { services } = caller;
      const sessionId = await sessionOf(args, caller, signal);
      const { session } = await services.sessions.getSession({ sessionId }, { signal });
      if (session === undefined) throw new ToolError(`no session ${sessionId}`);
      const runId = session.activeRunId || session.lastRunId;
      const run = runId === "" ? undefined : (await services.runs.getRun({ runId }, { signal })).run;
      return { ...sessionView(session), ...treeView(session), ...facts({ run: run && runView(run) }) };
    },
  }),
  tool({
    name: "get_agent_session_result",
    description:
      "Reads the result of a session's last run that has ended, or of one run. A long result comes in pieces: while the " +
      "answer has next_offset, call again with it.",
    input: z.object({
      session_id: sessionId,
      session_name: sessionName,
      run_id: z.string().max(64).optional().describe("The run, `run_…`. Default: the last that has ended."),
      part: z.enum(["text", "data"]).default("text").describe("data reads the JSON of result_data instead."),
      offset: z.int().min(0).default(0).describe("Where to begin, in characters."),
      limit: z.int().min(1).max(RESULT_MAX_CHARS).default(RESULT_SHOWN_CHARS).describe("Most characters to read."),
    }),
    hints: READS,
    async call({ run_id: runId = "", part, offset, limit, ...ref }, caller, signal) {
      const sessionId = await sessionOf(ref, caller, signal);
      const answer = await caller.services.sessions
        .getSessionResult({ sessionId, runId }, { signal })
        .catch((error: unknown) => {
          if (ConnectError.from(error).code !== Code.FailedPrecondition) throw error;
          const what = `${runId || sessionId} has no result yet, because it has not ended`;
          throw new ToolError(`${what}. wait_for_agent_sessions waits for it.`);
        });
      const { result } = answer;
      const text = part === "text" ? result?.text : result?.data && JSON.stringify(result.data);
      const page = pageOf(text ?? "", offset, limit);
      return {
        run_id: answer.runId,
        state: word(RunStateSchema, answer.state),
        ...endView(answer),
        [`result_${part}`]: page.text,
        total_chars: text?.length ?? 0,
        ...facts({
          next_offset: page.next,
          has_data: part === "text" && result?.data !== undefined ? true : undefined,
        }),
      };
    },
  }),
  tool({
    name: "list_agent_sessions",
    description:
      "Lists sessions with their status, newest first: for an agent its own session and those below it, for people all.",
    input: z.object({
      status: z
        .array(z.enum(["pending", "running", "stopping", "idle", "failed", "stopped"]))
        .default([])
        .describe("Only sessions with one of these. Default: all."),
      parent_session_id: z.string().max(64).optional().describe("Only sessions that this session started."),
      parent_session_name: z.string().max(128).optional().describe("The same, by the name of that session."),
      page_token: pageToken,
    }),
    hints: READS,
    async call({ status, parent_session_id, parent_session_name, page_token: pageToken = "" }, caller, signal) {
      const statuses = status.map((name) => SessionStatus[name.toUpperCase() as keyof typeof SessionStatus]);
      const parent = { session_id: parent_session_id, session_name: parent_session_name };
      const anyParent = parent_session_id === undefined && parent_session_name === undefined;
      const parentSessionId = anyParent ? "" : await sessionOf(parent, caller, signal);
      const page = await caller.services.sessions.listSessions(
        { statuses, parentSessionId, pageSize: SESSIONS_PAGE, pageToken },
        { signal },
      );
      return { sessions: page.sessions.map(sessionView), ...facts({ next_page_token: page.nextPageToken }) };
    },
  }),
  tool({
    name: "wait_for_agent_sessions",
    description:
      "Waits until sessions have settled: nothing of them runs or waits, and nothing that they started is to call them back. " +
      "Returns after 45 s at the latest, with the results of those that have settled and with what is still open and why; " +
      "call it again to wait on.",
    input: z.object({
      session_ids: sessionIds,
      session_names: sessionNames,
      until: z.enum(["all", "any"]).default("all").describe("any returns as soon as one has settled."),
      timeout_seconds: z.int().min(1).max(45).default(45).describe("Longest wait."),
    }),
    hints: READS,
    call: waitForSessions,
  }),
  tool({
    name: "stop_agent_session",
    description:
      "Stops what a session runs and what waits in it. The session stays; resume_agent_session continues it. Returns at " +
      "once, and the processes end within seconds.",
    input: z.object({
      session_id: sessionId,
      session_name: sessionName,
      include_children: z.boolean().default(false).describe("Also stop every session below it."),
      reason: z.string().max(1_024).default("").describe("Shown to people."),
    }),
    hints: DESTROYS,
    call: stopSession,
  }),
  tool({
    name: "delete_agent_session",
    description:
      "Deletes a session with its runs, events and results, for ever. Refused while it or a session below it is at work: " +
      "stop_agent_session first.",
    input: z.object({ session_id: sessionId, session_name: sessionName }),
    hints: DESTROYS,
    async call(args, caller, signal) {
      const sessionId = await sessionOf(args, caller, signal);
      refuseOwn(caller, sessionId, "it cannot be deleted while you work");
      await caller.services.sessions.deleteSession({ sessionId }, { signal });
      return { session_id: sessionId, deleted: true };
    },
  }),
];

/** Keeps the type of the arguments between schema and call, and forgets it outside. */
function tool<Input extends z.ZodObject>(definition: Omit<Tool<Input>, "schema">): Tool {
  const whole: Tool<Input> = { ...definition, schema: schemaOf(definition.input) };
  return whole;
}

/** What the coordinator makes the text for the agent of: without a prompt, of the parameters, or it says what is missing. */
function textOf({ prompt = "", parameters }: { prompt?: string | undefined; parameters?: JsonObject | undefined }) {
  return parameters === undefined ? { prompt } : { prompt, parameters };
}

function timeoutOf(seconds: number | undefined) {
  return seconds === undefined ? {} : { timeout: { seconds: BigInt(seconds), nanos: 0 } };
}

async function stopSession(
  args: SessionRef & { include_children: boolean; reason: string },
  caller: ToolCaller,
  signal: AbortSignal,
): Promise<JsonObject> {
  const { include_children: cascade, reason } = args;
  const sessionId = await sessionOf(args, caller, signal);
  refuseOwn(caller, sessionId, "end your turn instead of stopping it");
  const { services } = caller;
  const { session } = await services.sessions.getSession({ sessionId }, { signal });
  // What has ended is left as it is; asking for its end reaches what is below its session.
  const lastRunId = cascade ? (session?.lastRunId ?? "") : "";
  const stopped = new Set<string>();
  for await (const { answer, wasOpen } of stopRuns(services, { sessionId, lastRunId }, { reason, cascade }, signal)) {
    if (wasOpen && answer.run !== undefined) stopped.add(answer.run.runId);
    for (const id of answer.stoppedRunIds) stopped.add(id);
  }
  const next = "wait_for_agent_sessions waits until it has ended.";
  return {
    session_id: sessionId,
    stopped_run_ids: [...stopped],
    ...facts({ next: stopped.size > 0 ? next : undefined }),
  };
}
