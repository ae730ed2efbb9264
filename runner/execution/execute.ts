/*
 * How a run is executed, and where in this folder:
 *
 *     assignment    here                 an accepted offer becomes a command, a directory, stdin and an environment
 *     tools         mcp-server.ts        a URL of its own for the run's calls to the orchestrator
 *     placeholders  placeholders.ts      what a blueprint leaves open is filled in
 *     folder        session-dirs.ts      the session's own folder is there
 *     environment   environment.ts       what the executor gets of the runner's variables, and the facts of the run
 *     hooks         hooked.ts            what the agent's blueprint wants to be run before and after it
 *     spawn         supervisor.ts        a process group of its own, on the leash (leash.ts), watched by timers
 *     secrets       secret-filter.ts     what must not be seen is taken out of what it prints
 *     output        executor-output.ts   what it prints becomes events (executor-event.ts) and a result
 *     end           stop-ladder.ts       SIGTERM, grace, SIGKILL, to the group and what left it (processes.ts)
 *     outcome       outcome.ts           how it ended becomes COMPLETED, FAILED or STOPPED
 *
 * The leases (runner/leases) call it, one execution of a session at a time (session-executions.ts), and report its outcome.
 */
import { dirname, sep } from "node:path";
import type { InvocationBlueprint } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { RunOffer } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { TIMER_MAX_MS } from "../../lib/config/kinds.ts";
import { invocationJson } from "../../lib/invocation.ts";
import type { Log } from "../../lib/log.ts";
import { inPackage } from "../../lib/package-root.ts";
import { msOf } from "../connection/timing.ts";
import { executorEnv, inheritedEnv, maskedVariables, variablesNamed } from "./environment.ts";
import type { Leash } from "./leash.ts";
import type { McpCapability, ToolServer } from "./mcp-server.ts";
import { resolvePlaceholders } from "./placeholders.ts";
import type { PlaceholderSources } from "./placeholders.ts";
import { superviseHooked } from "./hooked.ts";
import type { Changes } from "./hooked.ts";
import { SessionDirError, SessionDirs } from "./session-dirs.ts";
import { SECRET_MIN_BYTES, Secrets } from "./secret-filter.ts";
import type { IdleTimeout, RunnerSettings } from "../settings/settings.ts";
import { handOverFailure } from "./start-failure.ts";
import { notSpawned, supervise } from "./supervisor.ts";
import type { Execution, ExecutionHooks, ExecutionSpec } from "./supervisor.ts";

/** An accepted run that is to be executed now. */
export interface Assignment {
  readonly offer: RunOffer;
  /** Store of the coordinator that made it. */
  readonly storeId: string;
  /** The run's own directory, or the runner's. */
  readonly projectDir: string;
  readonly bootId: string;
  readonly stopGraceMs: number;
}

/** Executes a run. Does not throw: what cannot be started is an outcome. */
export type Execute = (assignment: Assignment, hooks: ExecutionHooks) => Execution;

export interface ExecutorDeps {
  readonly leash: Pick<Leash, "add" | "remove">;
  /** Gives each run the URL of its tools. */
  readonly mcp: ToolServer;
  readonly log: Log;
}

/** Executes runs by spawning the executor, with the invocation on its stdin. */
export function executorOf(settings: RunnerSettings, deps: ExecutorDeps): Execute {
  const execute = spawning(settings, deps);
  return (assignment, hooks) => {
    const { runId, runToken, invocation } = assignment.offer;
    let capability: McpCapability | undefined;
    let execution: Execution;
    try {
      capability = deps.mcp.open({ runId, sessionId: invocation?.sessionId ?? "", runToken });
      execution = execute(assignment, hooks, capability);
    } catch (error) {
      execution = notToldOf(runId, error, deps.log);
    }
    void execution.done.then(() => capability?.close());
    return execution;
  };
}

function spawning({ executor, coordinatorUrl, stateDir }: RunnerSettings, { leash, log }: ExecutorDeps) {
  // Ours are written for our Node. Everybody else's keep the Node of the user, as the projects do that they work in.
  const isOurs = executor.command.startsWith(inPackage("executors") + sep);
  const nodeDir = isOurs ? dirname(process.execPath) : undefined;
  const masked = maskedSecrets(executor, log);
  const sessionDirs = new SessionDirs(stateDir);
  return (
    { offer, storeId, projectDir, bootId, stopGraceMs }: Assignment,
    hooks: ExecutionHooks,
    capability: McpCapability,
  ): Execution => {
    const { runId, runToken, invocation } = offer;
    const { passEnv } = executor;
    const sessionId = invocation?.sessionId ?? "";
    const run = {
      sessionId,
      sessionName: invocation?.sessionName || sessionId,
      sessionDir: sessionDirs.make({ sessionId, storeId }),
      runId,
      attempt: offer.attempt,
      apiUrl: coordinatorUrl,
      runToken,
      mcpUrl: capability.url,
      bootId,
    };
    const specOf = ({ prompt, parameters = invocation?.parameters }: Changes): ExecutionSpec => {
      const env = variablesNamed(passEnv, process.env);
      const sources = { sessionId, runId, mcpUrl: capability.url, parameters: parameters ?? {}, env };
      const changed = {
        ...(prompt === undefined ? {} : { prompt }),
        ...(parameters === undefined ? {} : { parameters }),
      };
      const told = invocation && {
        ...invocation,
        ...changed,
        projectDir,
        executorConfig: executor.config,
        ...resolved(invocation.agentBlueprint, sources, log),
      };
      return {
        command: executor.command,
        cwd: projectDir,
        stdin: told === undefined ? "" : invocationJson(told),
        env: executorEnv(process.env, { passEnv, nodeDir, run }),
        secrets: new Secrets([runToken, capability.secret ?? ""], masked),
        timeoutMs: limitMs(offer.timeout),
        ...idleLimit(offer, executor.idleTimeout),
        stopGraceMs,
      };
    };
    if (offer.hooks === undefined) return supervise(specOf({}), hooks, { leash });
    const failed = (error: unknown): Execution => notToldOf(runId, error, log);
    return superviseHooked({ hooks: offer.hooks, specOf, failed }, hooks, { leash });
  };
}

function notToldOf(runId: string, error: unknown, log: Log): Execution {
  log.error({ err: error, run_id: runId }, "what the executor is told could not be put together");
  if (!(error instanceof SessionDirError)) return notSpawned(handOverFailure(error));
  const { message, shortage } = error;
  return notSpawned({ message, shortage });
}

/** Prepared once for all runs: only the tokens of a run are its own. */
function maskedSecrets({ passEnv, maskEnv }: RunnerSettings["executor"], log: Log): Secrets {
  const masked = maskedVariables(maskEnv, inheritedEnv(process.env, passEnv));
  for (const [variable, value] of masked) {
    if (Buffer.byteLength(value) >= SECRET_MIN_BYTES) continue;
    log.warn({ variable }, `the value has fewer than ${SECRET_MIN_BYTES} bytes and is not masked`);
  }
  return new Secrets(masked.map(([, value]) => value));
}

function resolved(blueprint: InvocationBlueprint | undefined, sources: PlaceholderSources, log: Log) {
  if (blueprint === undefined) return {};
  const { blueprint: agentBlueprint, unresolved } = resolvePlaceholders(blueprint, sources);
  if (unresolved.length > 0) {
    log.warn({ run_id: sources.runId, agent: blueprint.name, unresolved }, "placeholders mean nothing and stay");
  }
  return { agentBlueprint };
}

/** The run's own limit wins, then the profile's, then the executor's. */
function idleLimit({ idleTimeout }: RunOffer, other: IdleTimeout | undefined) {
  if (idleTimeout !== undefined) {
    return {
      idleTimeoutMs: limitMs(idleTimeout),
      idleLimit: "the idle timeout of the run (--idle-timeout changes it)",
    };
  }
  if (other === undefined || other.ms === 0) return {};
  const change = "give the run an --idle-timeout, or set idle_timeout in";
  const { type, file } = other.of;
  const where = type === "profile" ? file : "an executor profile";
  return { idleTimeoutMs: other.ms, idleLimit: `the idle timeout of the ${type} (to change it, ${change} ${where})` };
}

function limitMs(duration: RunOffer["timeout"]): number | undefined {
  return duration === undefined ? undefined : Math.min(msOf(duration), TIMER_MAX_MS);
}
