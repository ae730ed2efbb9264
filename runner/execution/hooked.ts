import { accessSync, constants } from "node:fs";
import { delimiter, join, resolve } from "node:path";
import { create } from "@bufbuild/protobuf";
import { AgentHook_OnError } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import type { AgentHook, AgentHooks } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import { ExecutorEventSchema, ExecutorOutput_Stream } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorEvent } from "../../gen/agentrunner/v1/executor_pb.ts";
import { ExitSchema, FailureReason } from "../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind, Report_KindSchema } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { TIMER_MAX_MS } from "../../lib/config/kinds.ts";
import { msOf } from "../connection/timing.ts";
import { hookAnswer } from "./hook-answer.ts";
import type { HookAnswer, HookName } from "./hook-answer.ts";
import { stoppedBefore } from "./session-executions.ts";
import { supervise } from "./supervisor.ts";
import type {
  Execution,
  ExecutionHooks,
  ExecutionSpec,
  ExecutorOutcome,
  StopReason,
  SupervisorDeps,
} from "./supervisor.ts";

/** Longest time of a hook that names none. */
const DEFAULT_TIMEOUT_MS = 300_000;

/** Output of a hook that is read; what it answers is much less. */
const OUTPUT_MAX_BYTES = 1024 * 1024;

/** What a hook may change of a run. */
export type Changes = Pick<Extract<HookAnswer, { type: "continue" }>, "prompt" | "parameters">;

export interface Hooked {
  readonly hooks: AgentHooks;
  /** How the executor is started, once it is known what the hook changes. May throw. */
  readonly specOf: (changes: Changes) => ExecutionSpec;
  /** The outcome of what `specOf` throws. */
  readonly failed: (error: unknown) => Execution;
}

/** Executes a run with the hooks of its agent around it: hook, executor, hook, one after the other, in one slot. */
export function superviseHooked(hooked: Hooked, events: ExecutionHooks, deps: SupervisorDeps): Execution {
  return new HookedExecution(hooked, events, deps);
}

type Stop = { readonly graceMs: number; readonly reason: StopReason };

class HookedExecution implements Execution {
  readonly done: Promise<ExecutorOutcome>;
  readonly #hooked: Hooked;
  readonly #events: ExecutionHooks;
  readonly #deps: SupervisorDeps;
  /** What runs now: a hook or the executor. */
  #current: Execution | undefined;
  #finishing = false;
  #started = false;
  #stop: Stop | undefined;

  constructor(hooked: Hooked, events: ExecutionHooks, deps: SupervisorDeps) {
    this.#hooked = hooked;
    this.#events = events;
    this.#deps = deps;
    this.done = this.#run();
  }

  get pid(): number | undefined {
    return this.#current?.pid;
  }

  stop(graceMs: number, reason: StopReason = "requested"): void {
    // The order to stop stands and comes again: the last hook of a stopped run has its own short time.
    if (this.#finishing && this.#stop !== undefined && graceMs > 0 && reason === "requested") return;
    this.#stop = { graceMs, reason };
    this.#current?.stop(graceMs, reason);
  }

  async #run(): Promise<ExecutorOutcome> {
    const { hooks, failed } = this.#hooked;
    let spec: ExecutionSpec;
    try {
      spec = this.#hooked.specOf({});
      const before = hooks.onRunStart === undefined ? {} : await this.#before(hooks.onRunStart, spec);
      if ("kind" in before) return before;
      if (this.#stop !== undefined) return stoppedBefore(this.#stop.reason);
      spec = this.#hooked.specOf(before);
    } catch (error) {
      return await failed(error).done;
    }
    const hadStarted = this.#started;
    const outcome = await this.#execute(spec, this.#events);
    if (outcome.kind === Report_Kind.NOT_STARTED) return hadStarted ? shortAfterHook(outcome) : outcome;
    if (hooks.onRunFinish !== undefined) await this.#after(hooks.onRunFinish, spec, outcome);
    return outcome;
  }

  /** What the hook changes of the run, or the outcome of a run that ends with it. */
  async #before(hook: AgentHook, spec: ExecutionSpec): Promise<Changes | ExecutorOutcome> {
    const outcome = await this.#hook("on_run_start", hook, spec, {}, timeoutOf(hook));
    if (this.#stop !== undefined) return stoppedBefore(this.#stop.reason);
    if (outcome.kind === Report_Kind.NOT_STARTED && !this.#started) return outcome;
    const answer = outcome.kind === Report_Kind.COMPLETED ? hookAnswer(outcome.result?.text ?? "") : troubleOf(outcome);
    switch (answer.type) {
      case "continue":
        return answer;
      case "block":
        return hookOutcome(outcome, `blocked by on_run_start hook: ${answer.reason}`);
      case "unclear": {
        const text = `on_run_start hook ${hook.command[0]} failed: ${answer.problem}`;
        if (hook.onError === AgentHook_OnError.BLOCK) return hookOutcome(outcome, text);
        this.#say(`${text}; the run goes on`);
        return {};
      }
      default:
        return answer satisfies never;
    }
  }

  async #after(hook: AgentHook, spec: ExecutionSpec, outcome: ExecutorOutcome): Promise<void> {
    if (this.#stop?.reason === "runner-shutdown") return this.#say("on_run_finish hook not run: the runner ends");
    this.#finishing = true;
    const { stopGraceMs = DEFAULT_TIMEOUT_MS } = spec;
    const timeoutMs = this.#stop === undefined ? timeoutOf(hook) : Math.min(timeoutOf(hook), stopGraceMs);
    const { kind, message, exit, result } = outcome;
    const name = Report_KindSchema.value[kind]?.localName.toLowerCase() ?? "";
    const told = {
      outcome: name,
      message,
      exit_code: exit.code,
      signal: exit.signal || undefined,
      result: result && { text: result.text, data: result.data },
    };
    const end = await this.#hook("on_run_finish", hook, spec, told, timeoutMs);
    if (end.kind === Report_Kind.COMPLETED) return;
    const problem = end.kind === Report_Kind.STOPPED ? end.message : troubleOf(end).problem;
    this.#say(`on_run_finish hook ${hook.command[0]} failed: ${problem}; the outcome of the run stays`);
  }

  #hook(
    name: HookName,
    hook: AgentHook,
    spec: ExecutionSpec,
    told: object,
    timeoutMs: number,
  ): Promise<ExecutorOutcome> {
    const [program = "", ...args] = hook.command;
    const { cwd, env } = spec;
    const stdin = `${JSON.stringify({ ...JSON.parse(spec.stdin || "{}"), hook: name, ...told })}\n`;
    const { secrets, stopGraceMs } = spec;
    const own: ExecutionSpec = {
      ...{ command: programPath(program, cwd, env["PATH"] ?? ""), args, cwd, env, stdin, timeoutMs },
      outputMaxBytes: OUTPUT_MAX_BYTES,
      ...(secrets === undefined ? {} : { secrets }),
      ...(stopGraceMs === undefined ? {} : { stopGraceMs }),
    };
    const onEvent = (event: ExecutorEvent): void => {
      if (isForWatchers(event)) this.#events.onEvent(event);
    };
    return this.#execute(own, { ...this.#events, onEvent });
  }

  #execute(spec: ExecutionSpec, events: ExecutionHooks): Promise<ExecutorOutcome> {
    const onStarted = (pid: number): void => {
      // A run starts once, with its hook if it has one.
      if (this.#started) return;
      this.#started = true;
      events.onStarted(pid);
    };
    const execution = supervise(spec, { ...events, onStarted }, this.#deps);
    this.#current = execution;
    return execution.done;
  }

  #say(text: string): void {
    this.#events.onEvent(create(ExecutorEventSchema, { event: { case: "status", value: { text } } }));
  }
}

function timeoutOf({ timeout }: AgentHook): number {
  return timeout === undefined ? DEFAULT_TIMEOUT_MS : Math.min(msOf(timeout), TIMER_MAX_MS);
}

/** As a shell finds it: without a slash on PATH, else from the directory of the run. */
function programPath(program: string, cwd: string, path: string): string {
  if (program.includes("/")) return resolve(cwd, program);
  const places = path.split(delimiter).map((dir) => join(dir || ".", program));
  return places.find(isExecutable) ?? resolve(cwd, program);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    // Not here; the place that is left says why.
    return false;
  }
}

/** Of a hook's output: not what it answers on stdout, nor what would be taken for the executor's session, result or cost. */
function isForWatchers({ event }: ExecutorEvent): boolean {
  if (event.case === "output") return event.value.stream === ExecutorOutput_Stream.STDERR;
  return event.case === "status" || event.case === "dropped";
}

/** Why a hook did not do its work. Its outcome speaks of an executor. */
function troubleOf({ message }: ExecutorOutcome) {
  const problem = message.replace(/^executor (?=\/)/, "program ").replace(/^executor /, "it ");
  return { type: "unclear", problem } as const;
}

/** A run whose executor is not started because of its hook. */
function hookOutcome({ outputBytes }: ExecutorOutcome, message: string): ExecutorOutcome {
  return {
    kind: Report_Kind.FAILED,
    failure: FailureReason.HOOK,
    message,
    exit: create(ExitSchema),
    result: undefined,
    executorSessionId: "",
    outputBytes,
    malformedEvents: 0,
    malformedReason: "",
  };
}

/** The hook has run, so that the run cannot be handed back as one that never began. */
function shortAfterHook(outcome: ExecutorOutcome): ExecutorOutcome {
  return { ...outcome, kind: Report_Kind.FAILED, failure: FailureReason.ENVIRONMENT };
}
