import { create } from "@bufbuild/protobuf";
import type { JsonObject } from "@bufbuild/protobuf";
import type { AgentBlueprint } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import { ExecutorInvocationSchema, InvocationBlueprintSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorInvocation, InvocationBlueprint } from "../../gen/agentrunner/v1/executor_pb.ts";

/*
 * The document that an executor reads on stdin (ADR 8), as far as the coordinator knows it. Most of it is known when the run
 * is made and is stored then; an offer adds what depends on the attempt; the runner adds the rest (its directory, the
 * configuration of its executor, placeholders).
 */

/** Prompt of an attempt that continues an interrupted one, when the run names none. */
const RESUME_PROMPT = "You were interrupted; continue.";

/** What a new run is made with. */
export interface NewRun {
  readonly runId: string;
  readonly sessionId: string;
  /** True when the session existed before. */
  readonly resumes: boolean;
  readonly prompt: string;
  /** Empty: the runner's own. */
  readonly projectDir: string;
  /** Empty for a session that a person started. */
  readonly parentSessionId: string;
  readonly parameters: JsonObject | undefined;
  readonly metadata: JsonObject | undefined;
}

/** The part of the document that is stored with the run. The blueprint is not in it: the store has that once for all its runs. */
export function newInvocation(run: NewRun): ExecutorInvocation {
  const { runId, sessionId, resumes, prompt, projectDir, parentSessionId, parameters, metadata } = run;
  const mode = resumes ? "resume" : "start";
  const invocation = create(ExecutorInvocationSchema, {
    ...{ schemaVersion: "2.0", mode, sessionId, prompt, projectDir, runId, parentSessionId },
  });
  if (parameters !== undefined) invocation.parameters = parameters;
  if (metadata !== undefined) invocation.metadata = metadata;
  return invocation;
}

/** What depends on the attempt, and on what the session is called and how it stands now. */
export interface OfferedAttempt {
  readonly attempt: number;
  readonly sessionName: string;
  /** Empty when the executor never named its session. */
  readonly executorSessionId: string;
  /** True when the attempt continues an interrupted one. */
  readonly interrupted: boolean;
  /** Prompt of such an attempt; empty for the default. */
  readonly resumePrompt: string;
  /** The blueprint that the run is made with. */
  readonly blueprint: AgentBlueprint | undefined;
}

/** The part of a blueprint that an executor reads. */
export function invocationBlueprint(blueprint: AgentBlueprint): InvocationBlueprint {
  const { name, systemPrompt, mcpServers, outputSchema } = blueprint;
  const told = create(InvocationBlueprintSchema, { name, systemPrompt, mcpServers });
  if (outputSchema !== undefined) told.outputSchema = outputSchema;
  return told;
}

/** Completes a stored document, in place, for an offer. */
export function offeredInvocation(stored: ExecutorInvocation, offered: OfferedAttempt): ExecutorInvocation {
  if (offered.blueprint !== undefined) stored.agentBlueprint = invocationBlueprint(offered.blueprint);
  stored.attempt = offered.attempt;
  stored.sessionName = offered.sessionName;
  if (offered.interrupted) {
    stored.mode = "resume";
    stored.prompt = offered.resumePrompt || RESUME_PROMPT;
  }
  // An attempt that starts over does not continue the conversation of the one that was lost.
  stored.executorSessionId = stored.mode === "resume" ? offered.executorSessionId : "";
  return stored;
}
