import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ExecutorEventSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import { ExitSchema, FailureReason } from "../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { createLogger } from "../../lib/log.ts";
import type { Assignment } from "../../runner/execution/execute.ts";
import { startRunner } from "../../runner/runner.ts";
import type { RunnerDeps, RunningRunner } from "../../runner/runner.ts";
import type { RunnerSettings } from "../../runner/settings/settings.ts";
import type { ExecutionHooks, ExecutorOutcome, StopReason } from "../../runner/execution/supervisor.ts";
import type { FakeCoordinator } from "./fake-coordinator.ts";
import { until } from "./until.ts";

/** A temporary directory, gone after `cleanUp`. */
export function tempDir(): string {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), "agent-runner-test-")));
  cleanups.push(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

const cleanups: (() => unknown)[] = [];

export function atEnd(cleanup: () => unknown): void {
  cleanups.push(cleanup);
}

/** Undoes everything that was started, last first. For afterEach. */
export async function cleanUp(): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}

/** An execution that ends when the test says so. */
export interface FakeExecution {
  readonly assignment: Assignment;
  readonly hooks: ExecutionHooks;
  readonly stops: { graceMs: number; reason: StopReason | undefined }[];
  readonly end: (outcome?: Partial<ExecutorOutcome>) => void;
}

export interface TestRunner {
  readonly runner: RunningRunner;
  readonly executions: FakeExecution[];
  /** Lines of the log. */
  readonly log: string[];
  readonly execution: (runId: string) => Promise<FakeExecution>;
}

export interface TestRunnerOptions extends Partial<RunnerSettings> {
  /** Executions end at once, COMPLETED. */
  readonly instant?: boolean;
  /** Executions do not end when they are stopped. */
  readonly stubborn?: boolean;
  readonly deps?: Partial<RunnerDeps>;
}

/** A runner in this process, whose executions are the test's, against a fake coordinator. */
export async function startTestRunner(
  fake: Pick<FakeCoordinator, "url" | "note">,
  options: TestRunnerOptions = {},
): Promise<TestRunner> {
  const { instant = false, stubborn = false, deps, ...settings } = options;
  const executions: FakeExecution[] = [];
  const log: string[] = [];
  const runner = await startRunner(
    { ...testSettings(fake.url), ...settings },
    {
      log: createLogger({
        name: "test",
        level: "debug",
        format: "json",
        destination: { write: (line: string) => void log.push(line) },
      }),
      executor: () => (assignment, hooks) => {
        fake.note({ type: "spawn", leaseId: assignment.offer.leaseId });
        const done = Promise.withResolvers<ExecutorOutcome>();
        const stops: FakeExecution["stops"] = [];
        const execution = {
          assignment,
          hooks,
          stops,
          end: (outcome: Partial<ExecutorOutcome> = {}) => done.resolve(outcomeWith(outcome)),
        };
        executions.push(execution);
        hooks.onStarted(4_000_000 + executions.length);
        if (instant) execution.end();
        return {
          pid: 4_000_000 + executions.length,
          done: done.promise,
          stop: (graceMs, reason) => {
            stops.push({ graceMs, reason });
            if (stubborn) return;
            execution.end({
              kind: Report_Kind.STOPPED,
              failure: reason === "runner-shutdown" ? FailureReason.RUNNER_SHUTDOWN : FailureReason.UNSPECIFIED,
            });
          },
        };
      },
      ...deps,
    },
  );
  atEnd(async () => {
    runner.kill();
    await runner.done;
  });
  const execution = (runId: string) =>
    until(() => executions.find(({ assignment }) => assignment.offer.runId === runId), `the execution of ${runId}`);
  return { runner, executions, log, execution };
}

export function testSettings(coordinatorUrl: string): RunnerSettings {
  return {
    coordinatorUrl,
    tlsCaPem: undefined,
    hostname: "host-a",
    fixedHostname: false,
    projectDir: tempDir(),
    executorProfile: "fake",
    executor: { type: "fake", command: "/bin/true", config: {}, portable: false, passEnv: [], maskEnv: [] },
    tags: [],
    requireMatchingTags: false,
    maxRuns: 4,
    name: "",
    stateDir: tempDir(),
    pollTimeoutMs: 300,
    heartbeatIntervalMs: 60_000,
    drainTimeoutMs: 60_000,
    mcp: { type: "own", port: 0 },
    once: false,
  };
}

function outcomeWith(outcome: Partial<ExecutorOutcome>): ExecutorOutcome {
  return {
    kind: Report_Kind.COMPLETED,
    failure: FailureReason.UNSPECIFIED,
    message: "",
    exit: create(ExitSchema, { code: 0 }),
    result: undefined,
    executorSessionId: "",
    outputBytes: 0,
    malformedEvents: 0,
    malformedReason: "",
    ...outcome,
  };
}

/** An event that says that the executor's own session is `id`. */
export function sessionEvent(executorSessionId: string) {
  return create(ExecutorEventSchema, { event: { case: "session", value: { executorSessionId } } });
}

export function outputEvent(text: string) {
  return create(ExecutorEventSchema, { event: { case: "output", value: { text } } });
}
