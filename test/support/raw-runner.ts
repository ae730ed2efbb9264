import { randomUUID } from "node:crypto";
import type { DescMessage, Message, MessageInitShape } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import type { CallOptions } from "@connectrpc/connect";
import type { ExecutorEventSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import { HeldLease_Phase, LeaseVerdict_Kind } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { Directive, HeldLeaseSchema } from "../../gen/agentrunner/v1/runner_pb.ts";
import { Report_Kind, ReportVerdict_Kind, StreamClosing_Reason } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type {
  EventBatchVerdict,
  HeartbeatRequestSchema,
  HeartbeatResponse,
  RegisterRequestSchema,
  RegisterResponse,
  ReportSchema,
  ReportStatusResponse,
  RunOffer,
  WatchRunsRequestSchema,
  WatchRunsResponse,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { nameOf, present } from "./coordinator.ts";
import type { TestCoordinator } from "./coordinator.ts";
import { until } from "./until.ts";

type Kind = Exclude<keyof typeof Report_Kind, "UNSPECIFIED">;
type Verdict = keyof typeof ReportVerdict_Kind;
type Event = NonNullable<WatchRunsResponse["event"]["case"]>;
type Fields<D extends DescMessage> = Exclude<MessageInitShape<D>, Message>;
type Held = Fields<typeof HeldLeaseSchema>;
type Identity = Fields<typeof RegisterRequestSchema>;
type MoreOfReport = Fields<typeof ReportSchema>;
type ValueOf<C extends Event> = Extract<WatchRunsResponse["event"], { case: C }>["value"];
/** What a lease is named by. */
export type LeaseOf = Pick<RunOffer, "runId" | "leaseId" | "attempt">;

/** A runner that does nothing by itself: a test says each word it sends. */
export class RawRunner {
  readonly identity: Identity & { bootId: string };
  readonly registered: RegisterResponse;
  readonly #coordinator: TestCoordinator;
  readonly #seqs = new Map<string, bigint>();
  #stream: RawStream | undefined;

  private constructor(
    coordinator: TestCoordinator,
    identity: Identity & { bootId: string },
    registered: RegisterResponse,
  ) {
    this.#coordinator = coordinator;
    this.identity = identity;
    this.registered = registered;
  }

  /** Registers a runner; without a name it is one of its own. */
  static async register(coordinator: TestCoordinator, about: Identity = {}): Promise<RawRunner> {
    const identity = {
      hostname: "host-a",
      projectDir: "/srv/project",
      executorProfile: "test",
      name: randomUUID(),
      bootId: `boot_${randomUUID()}`,
      maxConcurrentRuns: 4,
      ...about,
    };
    return new RawRunner(coordinator, identity, await coordinator.runners.register(identity));
  }

  /** Registers a runner and opens its stream. */
  static async online(coordinator: TestCoordinator, about: Identity = {}): Promise<RawRunner> {
    const runner = await RawRunner.register(coordinator, about);
    await runner.open();
    return runner;
  }

  /** Registers the same identity again, as this or another process. */
  again(about: Identity = {}): Promise<RawRunner> {
    return RawRunner.register(this.#coordinator, { ...this.identity, ...about });
  }

  get runnerId(): string {
    return this.registered.runnerId;
  }

  get options(): CallOptions {
    return { headers: { authorization: `Bearer ${this.registered.runnerToken}` } };
  }

  get stream(): RawStream {
    return present(this.#stream);
  }

  /** Opens the stream and waits for its first message. */
  async open(said: Fields<typeof WatchRunsRequestSchema> = {}): Promise<RawStream> {
    const leave = new AbortController();
    const request = { runnerId: this.runnerId, bootId: this.identity.bootId, ...said };
    const messages = this.#coordinator.runners.watchRuns(request, { ...this.options, signal: leave.signal });
    this.#stream = new RawStream(messages, leave);
    await this.#stream.opened();
    return this.#stream;
  }

  /** Waits for the next offer of the stream, the one behind those already taken. */
  offer(): Promise<RunOffer> {
    return this.stream.offer();
  }

  /** Takes the next offer: ACCEPT, and STARTED unless told to stay CLAIMED. */
  async take(upTo: "CLAIMED" | "RUNNING" = "RUNNING"): Promise<RunOffer> {
    const offer = await this.offer();
    await this.accepted(offer);
    if (upTo === "RUNNING") await this.ok(offer, "STARTED", { pid: 4711 });
    return offer;
  }

  async accepted(offer: LeaseOf): Promise<void> {
    await this.ok(offer, "ACCEPT");
  }

  /** Reports, and throws unless the answer is OK. */
  async ok(lease: LeaseOf, kind: Kind, more: MoreOfReport = {}): Promise<void> {
    const verdict = await this.report(lease, kind, more);
    if (verdict !== "OK") throw new Error(`${kind} was answered ${verdict}`);
  }

  /** Reports with the next number of the lease, unless `more` has one; returns the verdict. */
  async report(lease: LeaseOf, kind: Kind, more: MoreOfReport = {}): Promise<Verdict> {
    const { verdicts } = await this.reports([this.said(lease, kind, more)]);
    return nameOf(ReportVerdict_Kind, present(verdicts[0]).kind);
  }

  said(lease: LeaseOf, kind: Kind, more: MoreOfReport = {}) {
    const { runId, leaseId, attempt } = lease;
    const seq = (this.#seqs.get(leaseId) ?? 0n) + 1n;
    this.#seqs.set(leaseId, seq);
    return { runId, leaseId, attempt, seq, kind: Report_Kind[kind], ...more };
  }

  reports(reports: MessageInitShape<typeof ReportSchema>[]): Promise<ReportStatusResponse> {
    return this.#coordinator.runners.reportStatus({ runnerId: this.runnerId, reports }, this.options);
  }

  heartbeat(said: Fields<typeof HeartbeatRequestSchema> = {}): Promise<HeartbeatResponse> {
    const request = { runnerId: this.runnerId, bootId: this.identity.bootId, ...said };
    return this.#coordinator.runners.heartbeat(request, this.options);
  }

  /** Sends a heartbeat that lists these leases; returns what is said of each. */
  async beat(...leases: Held[]): Promise<string[]> {
    const { verdicts } = await this.heartbeat({ held: leases });
    return verdicts.map(({ kind }) => nameOf(LeaseVerdict_Kind, kind));
  }

  async append(
    { runId, leaseId }: LeaseOf,
    firstSeq: number,
    events: MessageInitShape<typeof ExecutorEventSchema>[],
  ): Promise<EventBatchVerdict> {
    const batches = [{ runId, leaseId, firstSeq: BigInt(firstSeq), events }];
    const { verdicts } = await this.#coordinator.runners.appendEvents(
      { runnerId: this.runnerId, batches },
      this.options,
    );
    return present(verdicts[0]);
  }

  deregister(): Promise<unknown> {
    const { runnerId } = this;
    return this.#coordinator.runners.deregister({ runnerId, bootId: this.identity.bootId }, this.options);
  }
}

/** How a runner that runs it, or accepts it, lists a lease. */
export function held({ runId, leaseId, attempt }: LeaseOf, phase: keyof typeof HeldLease_Phase = "RUNNING"): Held {
  return { runId, leaseId, attempt, phase: HeldLease_Phase[phase] };
}

/** Leases that the orders say to stop. */
export function stopsIn(directives: readonly Directive[]): string[] {
  return directives.flatMap(({ kind }) => (kind.case === "stop" ? [kind.value.leaseId] : []));
}

/** An event of output, for AppendEvents. */
export function output(text: string): MessageInitShape<typeof ExecutorEventSchema> {
  return { event: { case: "output", value: { text } } };
}

/** A WatchRuns call: keeps every message. */
export class RawStream {
  readonly messages: WatchRunsResponse[] = [];
  readonly #leave: AbortController;
  #ended: { error: ConnectError | undefined } | undefined;
  #offersTaken = 0;

  constructor(messages: AsyncIterable<WatchRunsResponse>, leave: AbortController) {
    this.#leave = leave;
    void this.#collect(messages);
  }

  async #collect(messages: AsyncIterable<WatchRunsResponse>): Promise<void> {
    try {
      for await (const message of messages) this.messages.push(message);
      this.#ended = { error: undefined };
    } catch (error) {
      this.#ended = { error: ConnectError.from(error) };
    }
  }

  async opened(): Promise<void> {
    await until(() => this.messages.length > 0 || this.#ended !== undefined, "the stream is open");
    if (this.#ended?.error !== undefined) throw this.#ended.error;
  }

  /** What came under one case, in order. */
  all<C extends Event>(event: C): ValueOf<C>[] {
    return this.messages.flatMap((message) =>
      message.event.case === event ? [message.event.value as ValueOf<C>] : [],
    );
  }

  /** Waits for the n-th message of a case, n from 0. */
  async nth<C extends Event>(event: C, n = 0): Promise<ValueOf<C>> {
    await until(() => this.all(event).length > n, `${n + 1} × ${event} on the stream`);
    return present(this.all(event)[n]);
  }

  offer(): Promise<RunOffer> {
    return this.nth("offer", this.#offersTaken++);
  }

  get offers(): RunOffer[] {
    return this.all("offer");
  }

  /** Waits for the end; returns why, as `closing` or the error said. */
  async end(): Promise<string> {
    const { error } = await until(() => this.#ended, "the stream has ended");
    if (error !== undefined) throw error;
    const [closing] = this.all("closing");
    return nameOf(StreamClosing_Reason, closing?.reason ?? StreamClosing_Reason.UNSPECIFIED);
  }

  get open(): boolean {
    return this.#ended === undefined;
  }

  /** Leaves, as a process that dies does. */
  async leave(): Promise<void> {
    this.#leave.abort();
    await until(() => this.#ended, "the stream has ended");
  }

  /** Waits until something was sent that came behind everything sent before: a keep-alive. */
  async keepalive(): Promise<Directive[]> {
    const { directives } = await this.nth("keepalive", this.all("keepalive").length);
    return directives;
  }
}
