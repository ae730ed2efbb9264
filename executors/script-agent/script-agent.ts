import { setTimeout as delay } from "node:timers/promises";
import type { JsonObject } from "@bufbuild/protobuf";
import { emit, print } from "../lib/emit.ts";
import { ExecutorInvocation, InvocationError } from "../lib/invocation.ts";
import { recall, remember } from "./memory.ts";
import { OrchestratorError, callTool } from "./orchestrator.ts";
import { ScriptError, parseScript } from "./script.ts";
import type { Script, Start } from "./script.ts";

/** An agent without a model: does what the script in its prompt says. Returns its exit code. */
export async function main(): Promise<number> {
  try {
    const invocation = await ExecutorInvocation.fromStdin();
    await emit.session(invocation.executor_session_id ?? `script-${invocation.session_id}`);
    await emit.message("user", invocation.prompt);
    return await (invocation.callback === undefined
      ? play(invocation, parseScript(invocation.prompt))
      : calledBack(invocation, invocation.callback.child_session_ids));
  } catch (error) {
    const misused = error instanceof InvocationError || error instanceof ScriptError;
    if (!misused && !(error instanceof OrchestratorError)) throw error;
    await print(`script-agent: ${error.message}\n`, process.stderr);
    return misused ? 2 : 1;
  }
}

/** Takes the turn that was put off when the last of the sessions it waits for has called back. */
async function calledBack(invocation: ExecutorInvocation, by: readonly string[]): Promise<number> {
  const { awaited, ...memory } = recall(invocation.session_id);
  const open = awaited.filter((sessionId) => !by.includes(sessionId));
  remember(invocation.session_id, { ...memory, awaited: open });
  if (open.length === 0 && memory.afterwards !== undefined) return play(invocation, memory.afterwards);
  await emit.result(`${by.length} called back, ${open.length} to come`);
  return 0;
}

async function play(invocation: ExecutorInvocation, script: Script): Promise<number> {
  if (script.say !== undefined) await emit.message("assistant", script.say);
  if (script.sleep !== undefined) await delay(script.sleep * 1000);
  const started: string[] = [];
  const { awaited } = recall(invocation.session_id);
  const afterwards = script.afterwards === undefined ? {} : { afterwards: script.afterwards };
  for (const [i, start] of script.start.entries()) {
    // Named after the run and not the attempt, so that an attempt that is repeated starts nothing twice.
    const sessionId = await startSession(start, `${invocation.run_id ?? invocation.session_id}-${i}`);
    started.push(sessionId);
    if (start.mode !== "async_callback") continue;
    awaited.push(sessionId);
    remember(invocation.session_id, { awaited, ...afterwards });
  }
  if (script.wait) await settled(started);
  if (script.fail !== undefined) {
    await print(`${script.fail}\n`, process.stderr);
    return 1;
  }
  await emit.result(script.result ?? `${started.length} started`);
  return 0;
}

async function startSession({ name, agent, ...start }: Start, requestId: string): Promise<string> {
  const answer = await use<{ session_id: string }>("start_agent_session", requestId, {
    ...start,
    tags: [...start.tags],
    ...(name === undefined ? {} : { session_name: name }),
    ...(agent === undefined ? {} : { agent_name: agent }),
    request_id: requestId,
  });
  return answer.session_id;
}

/** The tool waits 45 s at the longest and is called again until nothing is open. */
async function settled(sessionIds: readonly string[]): Promise<void> {
  let open = [...sessionIds];
  for (let round = 1; open.length > 0; round += 1) {
    const question = { session_ids: open };
    const answer = await use<{ open: { session_id: string }[] }>("wait_for_agent_sessions", `wait-${round}`, question);
    open = answer.open.map((session) => session.session_id);
  }
}

/** Calls a tool, and says so in the session's events. @throws OrchestratorError */
async function use<Output extends JsonObject>(name: string, callId: string, input: JsonObject): Promise<Output> {
  await emit.tool({ tool_call_id: callId, name, input });
  const output = (await callTool(name, input)) as Output;
  await emit.tool({ tool_call_id: callId, name, output });
  return output;
}
