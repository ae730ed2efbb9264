import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ConnectRouter, HandlerContext } from "@connectrpc/connect";
import { EventEmitter, once } from "node:events";
import type { ExecutorEventSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import { FleetService } from "../../gen/agentrunner/v1/fleet_service_pb.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunSchema, RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { CreateRunRequest, WatchRunRequest, WatchRunResponse } from "../../gen/agentrunner/v1/run_service_pb.ts";
import { RunService, WatchRunResponseSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { Runner } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { Session, SessionEvent } from "../../gen/agentrunner/v1/session_pb.ts";
import { SessionEventSchema, SessionSchema } from "../../gen/agentrunner/v1/session_pb.ts";
import { SessionService } from "../../gen/agentrunner/v1/session_service_pb.ts";
import type { RunningServer, ServerOptions } from "../../coordinator/http/server.ts";
import { startServer } from "../../coordinator/http/server.ts";
import { createLogger } from "../../lib/log.ts";
import { notFound } from "../../lib/rpc/error-info.ts";
import { isFinalState } from "../../lib/protocol/final.ts";
import { OPEN_GATE } from "./test-server.ts";

/** Moment at which everything of the fake happens. */
export const T0_MS = Date.UTC(2026, 10, 21, 7, 50, 12, 123);

/**
 * RunService, SessionService and FleetService on a real port, with runs that only do what the test says. Validates
 * requests as the coordinator does.
 */
export class FakeCoordinator {
  readonly runs: Run[] = [];
  readonly runners: Runner[] = [];
  readonly events: SessionEvent[] = [];
  /** Every request that made a run, repeats included. */
  readonly created: CreateRunRequest[] = [];
  /** Cursors of every WatchRun call, in order. */
  readonly watched: string[] = [];
  /** Thrown, one a call, by the next calls of CreateRun, GetRun, ListRuns, WatchRun, DeleteSession and ListRunners; undefined lets one pass. */
  readonly failures: (ConnectError | undefined)[] = [];
  /** Sessions that were deleted. */
  readonly deleted: string[] = [];
  /** What a run that CreateRun makes is like besides. */
  onCreate: MessageInitShape<typeof RunSchema> = {};
  /** Headers `authorization` of CreateRun. */
  readonly tokens: (string | null)[] = [];
  /** Answers of /ready. */
  ready = true;
  readonly #changed = new EventEmitter().setMaxListeners(100);
  #server: RunningServer | undefined;
  #port = 0;

  readonly #tls: ServerOptions["tls"];

  /** With `tls` it speaks https. */
  constructor(tls?: ServerOptions["tls"]) {
    this.#tls = tls;
  }

  get url(): string {
    return `${this.#tls === undefined ? "http" : "https"}://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<this> {
    const page = (ok: boolean) => ({
      status: ok ? 200 : 503,
      contentType: "text/plain",
      body: ok ? "ok" : "disk full",
    });
    this.#server = await startServer({
      listen: { host: "127.0.0.1", port: this.#port },
      tls: this.#tls,
      gate: OPEN_GATE,
      routes: (router) => this.#routes(router),
      pages: { "/health": () => page(true), "/ready": () => page(this.ready) },
      log: createLogger({ name: "fake", level: "silent", format: "json" }),
    });
    this.#port = this.#server.port;
    return this;
  }

  /** Cuts every connection; `start` brings it back on the same port with the same runs. */
  async stop(): Promise<void> {
    await this.#server?.stop(0);
    this.#server = undefined;
  }

  addRun(init: MessageInitShape<typeof RunSchema> = {}): Run {
    const n = this.runs.length + 1;
    const run = create(RunSchema, {
      runId: `run_${n}`,
      sessionId: `ses_${n}`,
      sessionName: `ses_${n}`,
      state: RunState.RUNNING,
      createdAt: timestampFromMs(T0_MS),
      ...init,
    });
    this.runs.push(run);
    return run;
  }

  /** Stores an event of the run, and shows it to who watches. */
  happen(run: Run, event: MessageInitShape<typeof SessionEventSchema>["event"]): void {
    const { runId, sessionId } = run;
    const cursor = `c${this.events.length + 1}`;
    this.events.push(
      create(SessionEventSchema, { runId, sessionId, cursor, time: timestampFromMs(T0_MS), event: event! }),
    );
    this.#changed.emit("change");
  }

  say(run: Run, event: MessageInitShape<typeof ExecutorEventSchema>["event"]): void {
    this.happen(run, { case: "executor", value: { event: event! } });
  }

  print(run: Run, text: string): void {
    this.say(run, { case: "output", value: { text } });
  }

  /** Changes the run and stores the transition. */
  move(run: Run, state: RunState, change: MessageInitShape<typeof RunSchema> = {}): void {
    const made = create(RunSchema, change);
    for (const key of Object.keys(change) as (keyof Run)[]) Object.assign(run, { [key]: made[key] });
    run.state = state;
    const { runnerId, failure, message } = run;
    this.happen(run, { case: "transition", value: { state, runnerId, failure, message } });
  }

  #find(runId: string): Run {
    const run = this.runs.find((run) => run.runId === runId);
    if (run === undefined) throw notFound("RUN_NOT_FOUND", `run ${runId} does not exist`);
    return run;
  }

  #fail(): void {
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
  }

  #routes(router: ConnectRouter): void {
    router.service(RunService, {
      createRun: (request, context) => this.#create(request, context),
      getRun: ({ runId }) => (this.#fail(), { run: this.#find(runId) }),
      listRuns: ({ states, pageSize, pageToken, sessionId }) => {
        this.#fail();
        const from = Number(pageToken || 0);
        const all = this.runs
          .filter((run) => states.length === 0 || states.includes(run.state))
          .filter((run) => sessionId === "" || run.sessionId === sessionId)
          .toReversed();
        const more = from + pageSize < all.length;
        return { runs: all.slice(from, from + pageSize), nextPageToken: more ? String(from + pageSize) : "" };
      },
      findRuns: ({ prefix, limit }) => {
        const key = prefix.case ?? "runId";
        const all = this.runs
          .filter((run) => run[key].startsWith(prefix.value ?? ""))
          .filter(({ runId, sessionId }) => key !== "sessionId" || runId === this.#session(sessionId).lastRunId)
          .toReversed();
        const exact = all.filter((run) => run[key] === prefix.value);
        const found = exact.length > 0 ? exact : all;
        return { runs: found.slice(0, limit), more: found.length > limit };
      },
      stopRun: ({ runId, reason }) => {
        const run = this.#find(runId);
        if (!isFinalState(run.state)) this.move(run, RunState.STOPPED, { message: reason });
        return { run };
      },
      watchRun: (request, context) => this.#watch(request, context.signal),
      backupStore: ({ path }) => ({ path, bytes: 4096n }),
      pruneRuns: ({ dryRun }) => ({ runs: dryRun ? 3n : 2n, before: timestampFromMs(T0_MS) }),
    });
    router.service(SessionService, {
      getSession: ({ sessionId, sessionName }) => ({ session: this.#session(sessionId || sessionName) }),
      listSessions: () => ({ sessions: this.runs.map(({ sessionId }) => this.#session(sessionId)) }),
      listSessionEvents: ({ sessionId, runId, cursor, pageSize }) => {
        const all = this.events.filter(
          (event) => event.sessionId === sessionId && (runId === "" || event.runId === runId),
        );
        const rest = all.slice(all.findIndex((event) => event.cursor === cursor) + 1);
        // Two a page, so that readers must page.
        const events = rest.slice(0, Math.min(2, pageSize));
        return { events, nextCursor: events.at(-1)?.cursor ?? cursor, more: rest.length > events.length };
      },
      deleteSession: ({ sessionId }) => {
        this.#fail();
        this.deleted.push(sessionId);
        return {};
      },
      getSessionResult: ({ sessionId }) => {
        const run = this.runs.findLast((run) => run.sessionId === sessionId && isFinalState(run.state));
        if (run === undefined) throw new ConnectError("nothing has ended yet", Code.FailedPrecondition);
        const { runId, state, failure, message } = run;
        return { runId, state, failure, message, ...(run.result && { result: run.result }) };
      },
    });
    const runner = (runnerId: string): Runner => {
      const found = this.runners.find((runner) => runner.runnerId === runnerId);
      if (found === undefined) throw notFound("RUNNER_NOT_FOUND", `runner ${runnerId} does not exist`);
      return found;
    };
    router.service(FleetService, {
      listRunners: () => (this.#fail(), { runners: this.runners }),
      getRunner: ({ runnerId }) => ({ runner: runner(runnerId) }),
      drainRunner: ({ runnerId }) => ({ runner: Object.assign(runner(runnerId), { draining: true }) }),
      removeRunner: ({ runnerId }) => (runner(runnerId), { lostRunIds: ["run_held"] }),
    });
  }

  #create(request: CreateRunRequest, context: HandlerContext): { run: Run } {
    this.created.push(request);
    this.tokens.push(context.requestHeader.get("authorization"));
    this.#fail();
    const { sessionName, sessionId, mode, prompt, requestId } = request;
    const n = this.runs.length + 1;
    const id = sessionId || `ses_${n}`;
    const state = RunState.PENDING;
    return {
      run: this.addRun({
        sessionId: id,
        sessionName: sessionName || id,
        mode,
        prompt,
        requestId,
        state,
        ...this.onCreate,
      }),
    };
  }

  #session(ref: string): Session {
    const run = this.runs.findLast(({ sessionId, sessionName }) => ref === sessionId || ref === sessionName);
    if (run === undefined) throw notFound("SESSION_NOT_FOUND", `session ${ref} does not exist`);
    const { sessionId, sessionName, runId } = run;
    return create(SessionSchema, { sessionId, sessionName, lastRunId: runId, updatedAt: timestampFromMs(T0_MS) });
  }

  async *#watch({ runId, cursor }: WatchRunRequest, signal: AbortSignal): AsyncGenerator<WatchRunResponse, void> {
    this.watched.push(cursor);
    this.#fail();
    const run = this.#find(runId);
    yield create(WatchRunResponseSchema, { update: { case: "run", value: run } });
    let next = this.events.findIndex((event) => event.cursor === cursor) + 1;
    for (;;) {
      const event = this.events[next];
      if (event !== undefined) {
        next += 1;
        if (event.runId !== runId) continue;
        yield create(WatchRunResponseSchema, { cursor: event.cursor, update: { case: "event", value: event } });
      } else if (isFinalState(run.state)) {
        yield create(WatchRunResponseSchema, { update: { case: "run", value: run } });
        return;
      } else {
        await once(this.#changed, "change", { signal });
      }
    }
  }
}
