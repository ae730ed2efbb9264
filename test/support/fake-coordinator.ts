import { once } from "node:events";
import { createServer } from "node:http2";
import type { ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ConnectRouter, HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ExecutorInvocationSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import { LeaseVerdict_Kind, RunnerConfigSchema } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { LeaseVerdictSchema } from "../../gen/agentrunner/v1/runner_pb.ts";
import {
  ReportVerdict_Kind,
  Report_Kind,
  RunnerService,
  StreamClosing_Reason,
  WatchRunsResponseSchema,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type {
  AppendEventsRequest,
  DeregisterRequest,
  HeartbeatRequest,
  RegisterRequest,
  Report,
  ReportStatusRequest,
  RunOffer,
  RunOfferSchema,
  WatchRunsRequest,
  WatchRunsResponse,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { runnerId } from "../../lib/ids.ts";
import { until } from "./until.ts";

/** What came to the coordinator, what it answered, and what a test noted, in one order. */
export type Entry = { readonly atMs: number } & (
  | { readonly type: "register"; readonly request: RegisterRequest }
  | { readonly type: "watch"; readonly request: WatchRunsRequest; readonly authorization: string }
  | { readonly type: "batch"; readonly reports: readonly Report[] }
  | { readonly type: "report"; readonly report: Report }
  | { readonly type: "answered"; readonly report: Report; readonly verdict: ReportVerdict_Kind }
  | { readonly type: "heartbeat"; readonly request: HeartbeatRequest }
  | { readonly type: "events"; readonly request: AppendEventsRequest }
  | { readonly type: "deregister"; readonly request: DeregisterRequest }
  | { readonly type: "spawn"; readonly leaseId: string }
);

type NewEntry = Entry extends infer E ? (E extends unknown ? Omit<E, "atMs"> : never) : never;
type Of<T extends Entry["type"]> = Extract<Entry, { type: T }>;

/** An answer to one report; "silence" leaves the whole batch unanswered. */
export type ReportAnswer = ReportVerdict_Kind | "silence";

export interface FakeVerdict {
  readonly leaseId: string;
  readonly seq: bigint;
  readonly kind: ReportVerdict_Kind;
  readonly nextSeq?: bigint;
}

/** One open stream, from the coordinator's side. */
export interface FakeStream {
  readonly request: WatchRunsRequest;
  push(event: NonNullable<MessageInitShape<typeof WatchRunsResponseSchema>["event"]>): void;
  /** Ends it with an error, or without a word. */
  end(error?: ConnectError): void;
  readonly closed: boolean;
}

/** Timings that make a test of minutes one of milliseconds. */
const FAST = {
  heartbeatInterval: durationFromMs(40),
  leaseTtl: durationFromMs(600),
  acceptDeadline: durationFromMs(500),
  streamKeepalive: durationFromMs(100),
  streamMaxAge: durationFromMs(60_000),
  reconnectMin: durationFromMs(5),
  reconnectMax: durationFromMs(40),
  stopGrace: durationFromMs(200),
};

/**
 * A coordinator over real TCP that does what a test scripts: answers every report OK unless told otherwise, sends what it
 * is given on the newest stream, and keeps the history of everything.
 */
export class FakeCoordinator {
  readonly history: Entry[] = [];
  readonly streams: FakeStream[] = [];
  storeId = "store_a";
  readonly config = create(RunnerConfigSchema, FAST);
  /** Sends keep-alives on open streams. */
  keepalive = true;
  /** Sends what it has for a stream; without that nothing comes on it, as behind a proxy that keeps it back. */
  opens = true;
  onRegister: (request: RegisterRequest) => void | Promise<void> = () => undefined;
  /** The status of a page that a proxy answers to a call instead; undefined lets the call through. */
  proxyAnswer: (path: string) => number | undefined = () => undefined;
  onReport: (report: Report) => ReportAnswer = () => ReportVerdict_Kind.OK;
  /** Changes what is answered to a batch of reports. */
  onVerdicts: (verdicts: FakeVerdict[]) => FakeVerdict[] = (verdicts) => verdicts;
  onHeartbeat: (request: HeartbeatRequest) => void = () => undefined;
  onEvents: (request: AppendEventsRequest) => number | "silence" = () => Number.MAX_SAFE_INTEGER;
  streamMissing = false;
  verdictOf: (leaseId: string) => LeaseVerdict_Kind = () => LeaseVerdict_Kind.RENEWED;
  #server = createServer();
  #sessions = new Set<ServerHttp2Session>();
  #port = 0;
  #tokens = 0;
  #offers = 0;

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<this> {
    const handler = connectNodeAdapter({ routes: (router) => this.#routes(router) });
    this.#server = createServer((request, response) => {
      const status = this.proxyAnswer(request.url);
      if (status === undefined) return handler(request, response);
      request.resume();
      response.writeHead(status, { "content-type": "text/html" });
      return response.end("<html>Who are you?</html>");
    });
    this.#server.on("session", (session) => {
      this.#sessions.add(session);
      session.on("close", () => this.#sessions.delete(session));
      // A runner that is killed resets its connections.
      session.on("error", () => undefined);
    });
    this.#server.listen(this.#port, "127.0.0.1");
    await once(this.#server, "listening");
    this.#port = (this.#server.address() as AddressInfo).port;
    return this;
  }

  /** Ends every connection and stops listening, as a killed coordinator does. `start` takes the same port again. */
  async stop(): Promise<void> {
    for (const session of this.#sessions) session.destroy();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, "close");
  }

  note(entry: NewEntry): void {
    this.history.push({ ...entry, atMs: performance.now() });
  }

  of<T extends Entry["type"]>(t: T): Of<T>[] {
    return this.history.filter((entry): entry is Of<T> => entry.type === t);
  }

  reports(kind?: Report_Kind): Report[] {
    const all = this.of("report").map(({ report }) => report);
    return kind === undefined ? all : all.filter((report) => report.kind === kind);
  }

  /** The newest stream that is open. */
  stream(): Promise<FakeStream> {
    return until(() => this.streams.findLast(({ closed }) => !closed), "an open stream");
  }

  /** Offers a run on the newest stream. */
  async offer(fields: MessageInitShape<typeof RunOfferSchema> = {}): Promise<RunOffer> {
    this.#offers += 1;
    const n = this.#offers;
    const sessionId = `ses_${n}`;
    const invocation = create(ExecutorInvocationSchema, {
      schemaVersion: "2.0",
      mode: "start",
      sessionId,
      prompt: "hi",
    });
    const value = { runId: `run_${n}`, leaseId: `lease_${n}`, attempt: 1, invocation, ...fields };
    const stream = await this.stream();
    stream.push({ case: "offer", value });
    return value as RunOffer;
  }

  async close(reason: StreamClosing_Reason): Promise<void> {
    const stream = await this.stream();
    stream.push({ case: "closing", value: { reason } });
    stream.end();
  }

  #routes(router: ConnectRouter): void {
    router.service(RunnerService, {
      register: async (request) => {
        this.note({ type: "register", request });
        await this.onRegister(request);
        this.#tokens += 1;
        return {
          runnerId: runnerId(request),
          runnerToken: `rt_${this.#tokens}`,
          storeId: this.storeId,
          config: this.config,
          serverVersion: "fake",
          protocol: 1,
          verdicts: this.#verdicts(request.held),
        };
      },
      watchRuns: (request, context) => this.#watch(request, context),
      reportStatus: (request, context) => this.#report(request, context),
      heartbeat: (request) => {
        this.note({ type: "heartbeat", request });
        this.onHeartbeat(request);
        return { verdicts: this.#verdicts(request.held), streamMissing: this.streamMissing };
      },
      appendEvents: async (request, context) => {
        this.note({ type: "events", request });
        const committed = this.onEvents(request);
        if (committed === "silence") return await silence(context);
        const verdicts = request.batches.map(({ leaseId, firstSeq, events }) => ({
          leaseId,
          kind: ReportVerdict_Kind.OK,
          committedSeq: BigInt(Math.min(committed, Number(firstSeq) + events.length - 1)),
        }));
        return { verdicts };
      },
      deregister: (request) => {
        this.note({ type: "deregister", request });
        // As the real one: a runner that left has no stream any more.
        const removed = { case: "closing", value: { reason: StreamClosing_Reason.REMOVED } } as const;
        for (const stream of this.streams.filter(({ closed }) => !closed)) stream.push(removed);
        return {};
      },
    });
  }

  #verdicts(held: readonly { leaseId: string }[]): MessageInitShape<typeof LeaseVerdictSchema>[] {
    return held.map(({ leaseId }) => ({ leaseId, kind: this.verdictOf(leaseId) }));
  }

  async #report({ reports }: ReportStatusRequest, context: HandlerContext) {
    this.note({ type: "batch", reports });
    for (const report of reports) this.note({ type: "report", report });
    const verdicts: FakeVerdict[] = [];
    for (const report of reports) {
      const kind = this.onReport(report);
      if (kind === "silence") return await silence(context);
      verdicts.push({ leaseId: report.leaseId, seq: report.seq, kind });
    }
    for (const [i, report] of reports.entries()) this.note({ type: "answered", report, verdict: verdicts[i]!.kind });
    return { verdicts: this.onVerdicts(verdicts) };
  }

  async *#watch(request: WatchRunsRequest, context: HandlerContext): AsyncGenerator<WatchRunsResponse> {
    this.note({ type: "watch", request, authorization: context.requestHeader.get("authorization") ?? "" });
    const queue: (WatchRunsResponse | ConnectError | "end")[] = [];
    let wake = () => {};
    let closed = false;
    const put = (item: WatchRunsResponse | ConnectError | "end") => {
      queue.push(item);
      wake();
    };
    const stream: FakeStream = {
      request,
      push: (event) => put(create(WatchRunsResponseSchema, { event })),
      end: (error) => put(error ?? "end"),
      get closed() {
        return closed;
      },
    };
    const timer = setInterval(() => this.keepalive && stream.push({ case: "keepalive", value: {} }), 50);
    context.signal.addEventListener("abort", () => put("end"));
    stream.push({
      case: "opened",
      value: { streamId: `stream_${this.streams.length}`, verdicts: this.#verdicts(request.held) },
    });
    this.streams.push(stream);
    try {
      for (;;) {
        const item = queue.shift();
        if (item === "end") return;
        if (item instanceof ConnectError) throw item;
        if (item !== undefined && this.opens) yield item;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      closed = true;
      clearInterval(timer);
    }
  }
}

async function silence(context: HandlerContext): Promise<never> {
  await new Promise<void>((resolve) => context.signal.addEventListener("abort", () => resolve()));
  throw new ConnectError("scripted silence", Code.Unavailable);
}

/** Throws when anything was spawned before its accept was answered OK. */
export function assertAcceptBeforeSpawn(history: readonly Entry[]): void {
  for (const [i, entry] of history.entries()) {
    if (entry.type !== "spawn") continue;
    const accepted = history
      .slice(0, i)
      .some(
        (before) =>
          before.type === "answered" &&
          before.report.leaseId === entry.leaseId &&
          before.report.kind === Report_Kind.ACCEPT &&
          before.verdict === ReportVerdict_Kind.OK,
      );
    if (!accepted) throw new Error(`${entry.leaseId} was spawned before its accept was answered OK`);
  }
}
