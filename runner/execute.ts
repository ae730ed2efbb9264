import { dirname } from "node:path";
import type { RunOffer } from "../gen/agentrunner/v1/runner_service_pb.ts";
import { TIMER_MAX_MS } from "../lib/config-kinds.ts";
import { invocationJson } from "../lib/invocation.ts";
import { msOf } from "./coordinator-config.ts";
import { executorEnv } from "./environment.ts";
import type { Leash } from "./leash.ts";
import type { RunnerSettings } from "./settings.ts";
import { supervise } from "./supervisor.ts";
import type { Execution, ExecutionHooks } from "./supervisor.ts";

/** An accepted run that is to be executed now. */
export interface Assignment {
  readonly offer: RunOffer;
  /** The run's own directory, or the runner's. */
  readonly projectDir: string;
  readonly bootId: string;
  readonly stopGraceMs: number;
}

/** Executes a run. Must not throw: what cannot be started is an outcome. */
export type Execute = (assignment: Assignment, hooks: ExecutionHooks) => Execution;

/** Executes runs by spawning the executor, with the invocation on its stdin. */
export function executorOf(settings: RunnerSettings, leash: Pick<Leash, "add" | "remove">): Execute {
  const { executor, coordinatorUrl } = settings;
  const nodeDir = dirname(process.execPath);
  return ({ offer, projectDir, bootId, stopGraceMs }, hooks) => {
    const { invocation } = offer;
    const sessionId = invocation?.sessionId ?? "";
    const run = {
      sessionId,
      sessionName: invocation?.sessionName || sessionId,
      runId: offer.runId,
      attempt: offer.attempt,
      apiUrl: coordinatorUrl,
      runToken: offer.runToken,
      bootId,
    };
    const spec = {
      command: executor.command,
      cwd: projectDir,
      stdin:
        invocation === undefined ? "" : invocationJson({ ...invocation, projectDir, executorConfig: executor.config }),
      env: executorEnv(process.env, { passEnv: executor.passEnv, profileEnv: [], nodeDir, run }),
      timeoutMs: limitMs(offer.timeout),
      idleTimeoutMs: limitMs(offer.idleTimeout),
      stopGraceMs,
    };
    return supervise(spec, hooks, { leash });
  };
}

function limitMs(duration: RunOffer["timeout"]): number | undefined {
  return duration === undefined ? undefined : Math.min(msOf(duration), TIMER_MAX_MS);
}
