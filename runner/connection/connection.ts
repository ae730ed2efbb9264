import { Code, ConnectError, createClient } from "@connectrpc/connect";
import type { CallOptions, Client, Interceptor } from "@connectrpc/connect";
import type { Directive } from "../../gen/agentrunner/v1/runner_pb.ts";
import { RunnerService, StreamClosing_ReasonSchema } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { RegisterResponse, StreamClosing_Reason } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { TIMER_MAX_MS } from "../../lib/config/kinds.ts";
import { bearer } from "../../lib/rpc/bearer.ts";
import { abortable } from "../../lib/rpc/abortable.ts";
import { EXIT } from "../../lib/exit-codes.ts";
import type { Log } from "../../lib/log.ts";
import { connectTransport, describeConnectError } from "../../lib/rpc/transport.ts";
import type { CoordinatorLink } from "../../lib/rpc/transport.ts";
import { BUILT_IN, callTimeoutMs, heldBytes, timingOf } from "./timing.ts";
import type { Timing } from "./timing.ts";
import type { ConnectionListener } from "./connection-listener.ts";
import { httpStatusOf } from "../../lib/rpc/foreign-answers.ts";
import { isRefusal, itemOf, nextAfterClosing, registerRequest, silenceText } from "./connection-state.ts";
import type { ConnectionEnd, ConnectionOptions, ConnectionState, Next } from "./connection-state.ts";
import { oneItem } from "../one-item.ts";
import { Membership } from "./membership.ts";
import type { Registration } from "./membership.ts";
import { Retries, withHint } from "./retries.ts";
import { RunStream, WATCH_PATH } from "./run-stream.ts";
import type { StreamEnd, StreamEvent } from "./run-stream.ts";

export type RunnerClient = Client<typeof RunnerService>;

/** Beyond the lease: a live process may miss two heartbeats before its place is free. */
const TWIN_SLACK_MS = 15_000;

const REPLACED_TEXT = "another process has taken over this runner's identity";

/**
 * A runner's connection to its coordinator: registers, keeps one stream open, and repeats both with full-jitter backoff
 * for as long as it takes. Executors are not touched by anything that happens here.
 */
export class Connection {
  /** Resolves when the connection has ended for good. Never rejects. */
  readonly ended: Promise<ConnectionEnd>;
  readonly #options: ConnectionOptions;
  readonly #listener: ConnectionListener;
  readonly #log: Log;
  readonly #link: CoordinatorLink;
  readonly #client: RunnerClient;
  readonly #retries: Retries;
  readonly #end = Promise.withResolvers<ConnectionEnd>();
  readonly #closing = new AbortController();
  readonly #membership = new Membership();
  #state: ConnectionState = { type: "registering" };
  #timing: Timing = BUILT_IN;
  /** Times that what the runner says of itself has changed. */
  #changes = 0;

  constructor(options: ConnectionOptions, listener: ConnectionListener) {
    this.#options = options;
    this.#listener = listener;
    this.#log = options.log;
    this.#link = connectTransport(options.url, {
      ca: options.tlsCaPem,
      interceptors: [this.authorization],
      onBytes: (path) => {
        if (path.endsWith(WATCH_PATH)) this.#stream?.heard();
      },
    });
    this.#client = createClient(RunnerService, this.#link.transport);
    this.#retries = new Retries(BUILT_IN, options.log, this.closing, options.random);
    this.ended = this.#end.promise;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  get timing(): Timing {
    return this.#timing;
  }

  /** Aborted when the connection has ended. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** Sends the runner token with every call but Register. */
  readonly authorization: Interceptor = (next) => (request) => {
    const token = this.#membership.registration?.token;
    if (token !== undefined) request.header.set("authorization", bearer(token));
    return next(request);
  };

  /** Begins. Called once. */
  open(): void {
    this.#log.info(`Connecting to Agent Coordinator at ${this.#options.url}`);
    void this.#main();
  }

  /** Ends it, and every call that waits. The first end counts. */
  close(end: ConnectionEnd = { exitCode: EXIT.ok, text: "" }): void {
    if (this.#state.type === "closed") return;
    this.#abortStream();
    this.#state = { type: "closed", end };
    this.#closing.abort(new ConnectError("the connection was closed", Code.Canceled));
    this.#link.abort();
    this.#end.resolve(end);
  }

  /** The registration, as soon as there is one. Rejects when the connection ends. */
  registered(): Promise<Registration> {
    return this.#membership.registered(this.closing);
  }

  /**
   * A unary call, made once registered. `client` is another link's client for calls that must not share one connection;
   * the deadline follows the `bytes` of the request.
   * Rejects with ConnectError; what the error means for the connection is already being done.
   */
  async call<R>(
    make: (client: RunnerClient, runnerId: string, options: CallOptions) => Promise<R>,
    { client = this.#client, bytes = 0 }: { client?: RunnerClient; bytes?: number } = {},
  ): Promise<R> {
    const registration = await this.registered();
    try {
      return await make(client, registration.runnerId, { timeoutMs: callTimeoutMs(this.#timing, bytes) });
    } catch (error) {
      this.#judge(ConnectError.from(error).code, error, registration);
      throw error;
    }
  }

  /** Tells the coordinator that the runner leaves, waits for the answer, and closes. Never rejects. */
  async leave(): Promise<void> {
    const registration = this.#membership.leave();
    if (registration !== undefined) {
      const request = { runnerId: registration.runnerId, bootId: this.#options.bootId };
      // When this fails, the coordinator notices by itself that nothing comes any more.
      const onError = (error: unknown) => this.#log.debug({ reason: String(error) }, "could not deregister");
      await this.#client.deregister(request, { timeoutMs: callTimeoutMs(this.#timing) }).catch(onError);
    }
    this.close();
  }

  /** Carries out the standing orders of an answer. */
  obey(directives: readonly Directive[]): void {
    for (const { kind } of directives) {
      oneItem(this.#log, "an order", kind.case === "stop" ? kind.value : {}, () => {
        if (kind.case === "stop") this.#listener.stopped(kind.value);
        else if (kind.case === "drain") this.#listener.drained(kind.value.reason);
      });
    }
  }

  /** Registers again, because what the runner says of itself has changed; a Register that is under way says the former. */
  registerAgain(why: string): void {
    this.#changes += 1;
    this.#forget(this.#membership.registration, why);
  }

  /** A heartbeat sent at `sentAtMs` found no stream of this process: the coordinator has lost the one that seems open here. */
  streamMissing(sentAtMs: number): void {
    const state = this.#state;
    if (state.type === "superseded") state.wake.resolve();
    if (state.type !== "attached" || state.sinceMs > sentAtMs) return;
    this.#log.warn("the coordinator misses the stream; opening another one");
    state.stream.abort();
  }

  async #main(): Promise<void> {
    while (this.#state.type !== "closed") {
      const next = await this.#round();
      // The coordinator closes the stream of a runner that leaves; to open another would be to come back.
      if (this.#membership.leaving) return;
      if (next === "wait") await this.#untilMissing();
      if (next === "back-off") await this.#backOff();
    }
  }

  async #round(): Promise<Next> {
    try {
      return await this.#watch(this.#membership.registration ?? (await this.#register()));
    } catch (error) {
      return this.#afterFailure(error);
    }
  }

  /** Registers; repeats for a while when another process has the identity, and lets every other error out. */
  async #register(): Promise<Registration> {
    this.#enter({ type: "registering" });
    const patienceMs = this.#options.twinPatienceMs ?? this.#timing.leaseTtlMs + TWIN_SLACK_MS;
    return await this.#retries.whileTaken(async () => {
      for (;;) {
        const changes = this.#changes;
        const held = this.#listener.held();
        const options = { timeoutMs: callTimeoutMs(this.#timing, heldBytes(held)) };
        const answer = await this.#client.register(registerRequest(this.#options, held), options);
        if (changes === this.#changes) return this.#welcome(answer);
        this.#log.info("the runner has changed while it registered; registering again");
      }
    }, patienceMs);
  }

  #welcome(answer: RegisterResponse): Registration {
    const { runnerId, runnerToken: token, storeId } = answer;
    const registration: Registration = { runnerId, token, storeId };
    this.#log.info({ server_version: answer.serverVersion, store_id: storeId }, `Registered as ${runnerId}`);
    this.#retries.reset();
    this.#adopt(timingOf(answer.config, this.#timing));
    this.#membership.join(registration);
    this.#listener.registered(storeId);
    this.#listener.verdicts(answer.verdicts);
    return registration;
  }

  #adopt(timing: Timing): void {
    this.#timing = timing;
    this.#retries.adopt(timing);
  }

  async #watch({ runnerId }: Registration): Promise<Next> {
    const { bootId } = this.#options;
    const { freeSlots } = this.#listener;
    const request = { runnerId, bootId, freeSlots, held: this.#listener.held(), confirmsStream: true };
    const openedAtMs = performance.now();
    const stream = new RunStream(() => this.#silenceMs());
    this.#enter({ type: "opening", stream });
    const open = (signal: AbortSignal) => this.#client.watchRuns(request, { signal });
    // What one message says is no failure of the stream that brought it, and none of the network.
    const end = await stream.read(open, (event) =>
      oneItem(this.#log, `the message "${event.case}" of the stream`, itemOf(event), () => this.#hear(event)),
    );
    const ageMs = performance.now() - openedAtMs;
    if (ageMs > this.#timing.reconnectMaxMs) this.#retries.reset();
    const next = this.#afterStream(end);
    // Streams that end as soon as they are opened must not be reopened in a circle.
    return next === "reopen" && ageMs < this.#timing.reconnectMinMs ? "back-off" : next;
  }

  #silenceMs(): number {
    return Math.min(TIMER_MAX_MS, Math.max(this.#options.pollTimeoutMs, 2 * this.#timing.streamKeepaliveMs));
  }

  #hear(event: StreamEvent): void {
    const listener = this.#listener;
    switch (event.case) {
      case "opened":
        this.#attached(event.value.streamId);
        return listener.verdicts(event.value.verdicts);
      case "offer":
        return listener.offered(event.value);
      case "stop":
        return listener.stopped(event.value);
      case "drain":
        return listener.drained(event.value.reason);
      case "keepalive":
        return this.obey(event.value.directives);
      case undefined:
        // Something that only a newer runner knows.
        return undefined;
      default:
        return event satisfies never;
    }
  }

  #attached(streamId: string): void {
    if (this.#state.type !== "opening") return;
    this.#state = { type: "attached", stream: this.#state.stream, streamId, sinceMs: performance.now() };
    this.#log.debug({ stream_id: streamId }, "stream opened");
    this.#options.onAttached?.();
  }

  #afterStream(end: StreamEnd): Next {
    if (this.closing.aborted) return "close";
    switch (end.type) {
      case "closing":
        return this.#afterClosing(end.reason);
      case "ended":
        this.#log.debug("the stream ended");
        return "back-off";
      case "silent":
        this.#log.warn(silenceText(this.#state, this.#silenceMs()));
        // What is silent is the connection, as a rule: calls that wait on it would wait for their deadline.
        this.#link.abort();
        return "back-off";
      case "aborted":
        return "reopen";
      case "failed":
        return this.#afterFailure(end.error);
      default:
        return end satisfies never;
    }
  }

  #afterClosing(reason: StreamClosing_Reason): Next {
    const next = nextAfterClosing(reason);
    const name = StreamClosing_ReasonSchema.value[reason]?.localName ?? "unknown reason";
    this.#log.debug(`the coordinator closed the stream: ${name}`);
    if (next === "register") this.#forget(this.#membership.registration, "the runner was removed");
    if (next === "close") this.close({ exitCode: EXIT.refused, text: REPLACED_TEXT });
    return next === "register" ? "back-off" : next;
  }

  /** What an error of Register or of the stream means. */
  #afterFailure(error: unknown): Next {
    if (this.closing.aborted) return "close";
    const { code } = ConnectError.from(error);
    const { twinHint, url } = this.#options;
    const trouble = describeConnectError(error, url);
    const { registration, firstContact } = this.#membership;
    const registering = registration === undefined;
    this.#judge(code, error, registration);
    if (firstContact && this.#options.onceOnly && trouble.exitCode === EXIT.unreachable) {
      this.close({ exitCode: EXIT.unreachable, text: withHint(trouble) });
    }
    const hint = (code === Code.AlreadyExists ? twinHint : undefined) ?? trouble.hint;
    if (registering && isRefusal(code) && (firstContact || !isOfProxy(error)))
      this.close({ exitCode: EXIT.refused, text: withHint({ ...trouble, hint }) });
    if (this.closing.aborted) return "close";
    this.#retries.warn(withHint(trouble));
    return "back-off";
  }

  /** What the code of any failed call means for the registration it was made with, if that is still the present one. */
  #judge(code: Code, error: unknown, registration: Registration | undefined): void {
    if (registration === undefined || this.#membership.leaving || this.closing.aborted) return;
    if (registration !== this.#membership.registration) return;
    // Something on the way said it: it knows neither this runner nor what it executes.
    if (isOfProxy(error)) return;
    if (code === Code.Unauthenticated) {
      const { rawMessage } = ConnectError.from(error);
      this.close({ exitCode: EXIT.refused, text: `the coordinator no longer accepts this process: ${rawMessage}` });
    }
    if (code === Code.NotFound) this.#forget(registration, "the coordinator does not know this runner");
    if (code === Code.AlreadyExists) this.#forget(registration, "another process has this identity");
  }

  #forget(registration: Registration | undefined, why: string): void {
    if (registration === undefined || !this.#membership.forget(registration)) return;
    this.#log.warn(`${why}; registering again`);
    this.#abortStream();
    if (this.#state.type === "superseded") this.#state.wake.resolve();
  }

  /** Goes to another state; from `closed` there is no way. */
  #enter(state: ConnectionState): void {
    if (this.#state.type !== "closed") this.#state = state;
  }

  get #stream(): RunStream | undefined {
    return this.#state.type === "opening" || this.#state.type === "attached" ? this.#state.stream : undefined;
  }

  #abortStream(): void {
    this.#stream?.abort();
  }

  async #untilMissing(): Promise<void> {
    const wake = Promise.withResolvers<void>();
    this.#enter({ type: "superseded", wake });
    await abortable(wake.promise, this.closing).catch(() => undefined);
  }

  async #backOff(): Promise<void> {
    this.#enter({ type: "backing-off" });
    await this.#retries.pause();
  }
}

/** True for an HTTP status that no coordinator sends without words. */
function isOfProxy(error: unknown): boolean {
  return httpStatusOf(ConnectError.from(error)) !== undefined;
}
