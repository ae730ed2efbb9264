import { randomUUID } from "node:crypto";
import { dirname, sep } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { JsonObject } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import type { ExecutorEvent } from "../gen/agentrunner/v1/executor_pb.ts";
import { ExecutorInvocationSchema, InvocationBlueprintSchema } from "../gen/agentrunner/v1/executor_pb.ts";
import { invocationJson, SCHEMA_VERSION } from "../lib/invocation.ts";
import { BOOT_VARIABLE } from "../lib/boot-variable.ts";
import { inPackage } from "../lib/package-root.ts";
import { executorEnv, runMarkers } from "../runner/execution/environment.ts";
import type { Leash } from "../runner/execution/leash.ts";
import { processesMarked } from "../runner/execution/processes.ts";
import { supervise } from "../runner/execution/supervisor.ts";
import type { Execution } from "../runner/execution/supervisor.ts";
import type { Seen } from "./judge.ts";
import type { ModelRequest, ModelStub } from "./model-stub/server.ts";
import type { FakeOrchestrator } from "./orchestrator.ts";
import { commandOf, processesBelow, shownSurvivor, survivors } from "./survivors.ts";
import type { Survivor } from "./survivors.ts";
import type { Workspace } from "./workspace.ts";

/** Name of the model where one has to be named. */
export const STUB_MODEL = "stub-model";

/** Time after the end of a run in which all of it has to be gone. */
const GONE_AFTER_MS = 1_000;

/** Time after which a process of a run that has just begun carries its environment. */
const STRAY_AFTER_MS = 200;

/** Pause between two looks at whether a run is to be stopped now. */
const LOOK_AGAIN_MS = 50;

/** Time that an executor has to end after its time is over. */
const TIMEOUT_GRACE_MS = 2_000;

/** Variables that lead out of the temporary home. */
const NOT_THE_USERS = {
  XDG_CONFIG_HOME: undefined,
  XDG_DATA_HOME: undefined,
  XDG_STATE_HOME: undefined,
  XDG_CACHE_HOME: undefined,
};

/** What is checked. */
export interface BenchTarget {
  /** Absolute path of the program. */
  readonly command: string;
  readonly config: JsonObject;
  readonly parameters: JsonObject;
  /** Variables of the user that it gets beside the usual ones. */
  readonly passEnv: readonly string[];
  /** Variables of the roster by which it finds the model. The first key is set, and no key is the user's. */
  readonly endpoint: {
    readonly urls: readonly string[];
    readonly keys: readonly string[];
    readonly models: readonly string[];
  };
}

/** A session of the check; the runs of one share it. */
export interface CheckSession {
  readonly sessionId: string;
  readonly executorSessionId?: string;
}

/** What is known of a run while it goes on. */
export interface Progress {
  readonly started: boolean;
  readonly events: readonly ExecutorEvent[];
  readonly requests: readonly ModelRequest[];
  /** Command lines of its processes. */
  processes(): string[];
}

/** One run. */
export interface Order {
  readonly prompt: string;
  readonly session: CheckSession;
  readonly mode?: "start" | "resume";
  /** Instead of an invocation. */
  readonly stdin?: string;
  readonly cwd?: string;
  readonly timeoutMs: number;
  /** Stops it as soon as `when` holds; `unheard`: so that SIGKILL is the only signal that it hears. */
  readonly stop?: {
    readonly when: (progress: Progress) => boolean;
    readonly graceMs: number;
    readonly unheard?: boolean;
  };
  /** Watches it without a stop. */
  readonly watch?: (progress: Progress) => void;
  /** Halts its processes at its result, so that it cannot exit; the grace after the result is short then. */
  readonly haltAtResult?: boolean;
  /** MCP servers of its blueprint. */
  readonly servers?: Readonly<
    Record<string, { readonly url: string; readonly headers: Readonly<Record<string, string>> }>
  >;
}

/** A run that has ended. */
export interface Ran extends Seen {
  /** Those that were there 1 s later. */
  readonly left: Promise<readonly Survivor[]>;
}

export interface BenchDeps {
  readonly stub: ModelStub;
  readonly orchestrator: FakeOrchestrator;
  readonly workspace: Workspace;
  readonly leash: Pick<Leash, "add" | "remove">;
  readonly bootId: string;
  /** The user's environment. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Folder of the installed agents, which the temporary home would hide. */
  readonly agentsDir: string;
}

/** Runs an executor as a runner does, with its supervisor, its environment and its sweep, and looks on. */
export class Bench {
  readonly #target: BenchTarget;
  readonly #deps: BenchDeps;
  readonly #all: { readonly left: Promise<readonly Survivor[]>; readonly ended: string | undefined }[] = [];
  readonly #strays = new Set<number>();
  #current: Execution | undefined;
  #runs = 0;
  #stopping = false;

  constructor(target: BenchTarget, deps: BenchDeps) {
    this.#target = target;
    this.#deps = deps;
  }

  newSession(): CheckSession {
    return { sessionId: `ses_check_${randomUUID().replaceAll("-", "").slice(0, 12)}` };
  }

  async run(order: Order): Promise<Ran> {
    const { stub } = this.#deps;
    const env = this.#environment(order.session);
    const markers = runMarkers(env) ?? [];
    const from = stub.requests.at(-1)?.number ?? 0;
    const events: ExecutorEvent[] = [];
    const begunAt = performance.now();
    let started = false;
    const execution = supervise(
      {
        command: this.#target.command,
        cwd: order.cwd ?? this.#deps.workspace.project,
        stdin: order.stdin ?? this.#invocation(order, env),
        env,
        timeoutMs: order.timeoutMs,
        stopGraceMs: TIMEOUT_GRACE_MS,
        ...(order.haltAtResult === true && { resultGraceMs: 1_000, stopGraceMs: 500 }),
      },
      {
        onStarted: () => (started = true),
        onEvent: (event) => {
          events.push(event);
          if (order.haltAtResult === true && event.event.case === "result") halt(execution.pid);
        },
      },
      { leash: this.#deps.leash },
    );
    this.#current = execution;
    if (this.#stopping) execution.stop(0);
    const progress: Progress = {
      get started() {
        return started;
      },
      events,
      get requests() {
        return stub.requests.filter(({ number }) => number > from);
      },
      processes: () => processesMarked(markers).flatMap((pid) => commandOf(pid) ?? []),
    };
    const watched = watch(execution, order, progress);
    const outcome = await execution.done;
    const endedAt = performance.now();
    this.#current = undefined;
    const stoppedAt = await watched;
    const left = this.#leftOf(markers);
    this.#all.push({ left, ended: endedBehind(outcome.message) });
    return {
      outcome,
      events,
      requests: progress.requests,
      stopped: stoppedAt !== undefined,
      endedAfterMs: stoppedAt === undefined ? 0 : endedAt - stoppedAt,
      durationMs: endedAt - begunAt,
      left,
    };
  }

  /** What is left of all runs, and what the runner had to end at the end of one. */
  async leftovers(): Promise<{ left: string[]; ended: string[] }> {
    const left: string[] = [];
    for (const run of this.#all) left.push(...(await run.left).map(shownSurvivor));
    return { left: [...new Set(left)], ended: this.#all.flatMap(({ ended }) => ended ?? []) };
  }

  /** Ends the run that goes on, and each that is begun afterwards. */
  stop(): void {
    this.#stopping = true;
    this.#current?.stop(0);
  }

  /** Ends what runs have left behind, and the run that goes on. */
  async close(): Promise<void> {
    this.stop();
    await this.#current?.done;
    for (const { left } of this.#all) for (const { pid } of await left) kill(pid);
    for (const pid of processesBelow(this.#deps.workspace.root)) kill(pid);
  }

  async #leftOf(markers: readonly string[]): Promise<readonly Survivor[]> {
    await delay(GONE_AFTER_MS);
    // One that has cleared its environment is known by its directory alone, and then only once. A later run may go on meanwhile,
    // whose processes have no environment for a moment while they begin: only who stays without is a stray.
    const suspects = processesBelow(this.#deps.workspace.root);
    await delay(STRAY_AFTER_MS);
    const ofRuns = new Set(processesMarked([`${BOOT_VARIABLE}=${this.#deps.bootId}`]));
    const strays = suspects.filter((pid) => !this.#strays.has(pid) && !ofRuns.has(pid));
    for (const pid of strays) this.#strays.add(pid);
    return survivors([...new Set([...processesMarked(markers), ...strays])]);
  }

  #environment({ sessionId }: CheckSession): Record<string, string> {
    const { stub, orchestrator, workspace, bootId, env, agentsDir } = this.#deps;
    const { command, passEnv, endpoint } = this.#target;
    this.#runs += 1;
    const [firstKey] = endpoint.keys;
    const own = {
      ...stub.env({ urls: endpoint.urls, keys: firstKey === undefined ? [] : [firstKey] }),
      ...Object.fromEntries(endpoint.models.map((name) => [name, env[name] || STUB_MODEL])),
      AGENT_RUNNER_AGENTS_DIR: agentsDir,
    };
    return executorEnv(
      { ...env, ...without(endpoint.keys), ...own, ...NOT_THE_USERS, HOME: workspace.home },
      {
        passEnv: [...passEnv, ...Object.keys(own)],
        nodeDir: command.startsWith(inPackage("executors") + sep) ? dirname(process.execPath) : undefined,
        run: {
          sessionId,
          sessionName: sessionId,
          sessionDir: workspace.sessionDir(sessionId),
          runId: `run_check_${this.#runs}`,
          attempt: 1,
          apiUrl: orchestrator.orchestratorUrl,
          runToken: "check-run-token",
          mcpUrl: orchestrator.orchestratorUrl,
          bootId,
        },
      },
    );
  }

  #invocation({ prompt, session, mode = "start", cwd, servers }: Order, env: Readonly<Record<string, string>>): string {
    const { config, parameters } = this.#target;
    const blueprint = servers && {
      agentBlueprint: create(InvocationBlueprintSchema, {
        name: "check",
        mcpServers: Object.fromEntries(
          Object.entries(servers).map(([name, server]) => [
            name,
            { type: "http", ...server, headers: { ...server.headers } },
          ]),
        ),
      }),
    };
    return invocationJson(
      create(ExecutorInvocationSchema, {
        schemaVersion: SCHEMA_VERSION,
        mode,
        sessionId: session.sessionId,
        prompt,
        projectDir: cwd ?? this.#deps.workspace.project,
        metadata: {},
        runId: env["AGENT_RUN_ID"] ?? "",
        attempt: 1,
        sessionName: session.sessionId,
        executorSessionId: mode === "resume" ? (session.executorSessionId ?? "") : "",
        executorConfig: config,
        parameters,
        ...blueprint,
      }),
    );
  }
}

/** The processes that the message of an outcome names as left behind. */
function endedBehind(message: string): string | undefined {
  return /left processes behind, which were ended: ([^;]+)/.exec(message)?.[1];
}

function without(names: readonly string[]): Record<string, undefined> {
  return Object.fromEntries(names.map((name) => [name, undefined]));
}

/** Looks until the run has ended; the time at which it was stopped. */
async function watch(execution: Execution, order: Order, progress: Progress): Promise<number | undefined> {
  const ended = execution.done.then(() => true);
  do {
    order.watch?.(progress);
    if (order.stop?.when(progress) === true) {
      if (order.stop.unheard === true) halt(execution.pid);
      execution.stop(order.stop.graceMs);
      return performance.now();
    }
  } while (!(await Promise.race([ended, delay(LOOK_AGAIN_MS, false)])));
  return undefined;
}

/** Halts the group, as a machine does that swaps. */
function halt(pid: number | undefined): void {
  if (pid !== undefined) kill(-pid, "SIGSTOP");
}

function kill(pid: number, signal: NodeJS.Signals = "SIGKILL"): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}
