import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import type { CallOptions, Client, Interceptor } from "@connectrpc/connect";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Directive } from "../../gen/agentrunner/v1/runner_pb.ts";
import { RunnerService, StreamClosing_ReasonSchema } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type {
  RegisterRequestSchema,
  RegisterResponse,
  StreamClosing_Reason,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { PROTOCOL } from "../../lib/protocol-version.ts";
import { bearer } from "../../lib/rpc/bearer.ts";
import { abortable } from "../../lib/rpc/abortable.ts";
import { Backoff } from "../../lib/rpc/backoff.ts";
import { EXIT } from "../../lib/exit-codes.ts";
import type { Log } from "../../lib/log.ts";
import { connectTransport, describeConnectError } from "../../lib/rpc/transport.ts";
import type { CoordinatorLink } from "../../lib/rpc/transport.ts";
import { BUILT_IN, timingOf } from "./timing.ts";
import type { Timing } from "./timing.ts";
import { isRefusal, nextAfterClosing } from "./connection-state.ts";
import type {
  ConnectionEnd,
  ConnectionHandler,
  ConnectionOptions,
  ConnectionState,
  Next,
  Registration,
} from "./connection-state.ts";
import { RunStream } from "./run-stream.ts";
import type { StreamEnd, StreamHandler } from "./run-stream.ts";

export type RunnerClient = Client<typeof RunnerService>;

/** Longest answer of a unary call, unless a third of the lease is shorter. */
const CALL_MAX_MS = 10_000;

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
  readonly #handler: ConnectionHandler;
  readonly #log: Log;
  readonly #link: CoordinatorLink;
  readonly #client: RunnerClient;
  readonly #backoff: Backoff;
  readonly #end = Promise.withResolvers<ConnectionEnd>();
  readonly #closing = new AbortController();
  #state: ConnectionState = { type: "registering" };
  #timing: Timing = BUILT_IN;
  #registration: Registration | undefined;
  #registered = Promise.withResolvers<Registration>();
  #contacted = false;
  #leaving = false;
  #stream: RunStream | undefined;
  #wake = Promise.withResolvers<void>();

  constructor(options: ConnectionOptions, handler: ConnectionHandler) {
    this.#options = options;
    this.#handler = handler;
    this.#log = options.log;
    this.#link = connectTransport(options.url, { ca: options.tlsCaPem, interceptors: [this.authorization] });
    this.#client = createClient(RunnerService, this.#link.transport);
    this.#backoff = new Backoff(BUILT_IN.reconnectMinMs, BUILT_IN.reconnectMaxMs, options.random);
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
    const token = this.#registration?.token;
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
    this.#state = { type: "closed", end };
    this.#closing.abort(new ConnectError("the connection was closed", Code.Canceled));
    this.#stream?.abort();
    this.#link.abort();
    this.#end.resolve(end);
  }

  /** The registration, as soon as there is one. Rejects when the connection ends. */
  async registered(): Promise<Registration> {
    if (this.#registration !== undefined) return this.#registration;
    return await abortable(this.#registered.promise, this.closing);
  }

  /**
   * A unary call, made once registered. `client` is another link's client for calls that must not share one connection.
   * Rejects with ConnectError; what the error means for the connection is already being done.
   */
  async call<R>(
    make: (client: RunnerClient, runnerId: string, options: CallOptions) => Promise<R>,
    client: RunnerClient = this.#client,
  ): Promise<R> {
    const registration = await this.registered();
    try {
      return await make(client, registration.runnerId, { timeoutMs: this.callTimeoutMs });
    } catch (error) {
      this.#judge(ConnectError.from(error).code, error, registration);
      throw error;
    }
  }

  /** Tells the coordinator that the runner leaves, waits for the answer, and closes. Never rejects. */
  async leave(): Promise<void> {
    const registration = this.#registration;
    this.#leaving = true;
    if (registration !== undefined) {
      const { runnerId } = registration;
      const { bootId } = this.#options;
      try {
        await this.#client.deregister({ runnerId, bootId }, { timeoutMs: this.callTimeoutMs });
      } catch (error) {
        // The coordinator notices by itself that nothing comes any more.
        this.#log.debug({ reason: String(error) }, "could not deregister");
      }
    }
    this.close();
  }

  get callTimeoutMs(): number {
    return Math.min(CALL_MAX_MS, Math.ceil(this.#timing.leaseTtlMs / 3));
  }

  /** Carries out the standing orders of an answer. */
  obey(directives: readonly Directive[]): void {
    for (const { kind } of directives) {
      if (kind.case === "stop") this.#handler.stopped(kind.value);
      else if (kind.case === "drain") this.#handler.drained(kind.value.reason);
    }
  }

  /** A heartbeat sent at `sentAtMs` found no stream of this process: an older stream of ours is deaf. */
  streamMissing(sentAtMs: number): void {
    const state = this.#state;
    if (state.type === "superseded") this.#wake.resolve();
    if (state.type !== "attached" || state.sinceMs > sentAtMs) return;
    this.#log.warn("the coordinator misses the stream; opening another one");
    this.#stream?.abort();
  }

  async #main(): Promise<void> {
    while (this.#state.type !== "closed") {
      const next = await this.#round();
      // The coordinator closes the stream of a runner that leaves; to open another would be to come back.
      if (this.#leaving) return;
      if (next === "wait") await this.#untilMissing();
      if (next === "back-off") await this.#backOff();
    }
  }

  async #round(): Promise<Next> {
    try {
      return await this.#watch(this.#registration ?? (await this.#register()));
    } catch (error) {
      return this.#afterFailure(error);
    }
  }

  /** Registers; repeats for a while when another process has the identity, and lets every other error out. */
  async #register(): Promise<Registration> {
    this.#state = { type: "registering" };
    let giveUpAtMs: number | undefined;
    for (;;) {
      try {
        const options = { timeoutMs: this.callTimeoutMs };
        return this.#welcome(await this.#client.register(this.#registerRequest(), options));
      } catch (error) {
        if (ConnectError.from(error).code !== Code.AlreadyExists || this.closing.aborted) throw error;
        const patienceMs = this.#options.twinPatienceMs ?? this.#timing.leaseTtlMs + TWIN_SLACK_MS;
        giveUpAtMs ??= performance.now() + patienceMs;
        if (performance.now() > giveUpAtMs) throw error;
        this.#logRepeated(
          `${ConnectError.from(error).rawMessage}; trying again for ${Math.round(patienceMs / 1000)} s`,
        );
        await this.#sleep(this.#backoff.next());
      }
    }
  }

  #registerRequest(): MessageInitShape<typeof RegisterRequestSchema> {
    const { identity, bootId, previousBootId } = this.#options;
    return {
      ...identity,
      bootId,
      previousBootId,
      protocolMin: PROTOCOL.min,
      protocolMax: PROTOCOL.max,
      held: this.#handler.held(),
    };
  }

  #welcome(answer: RegisterResponse): Registration {
    const { runnerId, runnerToken: token, storeId } = answer;
    const registration: Registration = { runnerId, token, storeId };
    this.#log.info({ server_version: answer.serverVersion, store_id: storeId }, `Registered as ${runnerId}`);
    this.#contacted = true;
    this.#backoff.reset();
    this.#adopt(timingOf(answer.config, this.#timing));
    this.#registration = registration;
    this.#handler.registered(registration);
    this.#handler.verdicts(answer.verdicts);
    this.#registered.resolve(registration);
    return registration;
  }

  #adopt(timing: Timing): void {
    this.#timing = timing;
    this.#backoff.minMs = timing.reconnectMinMs;
    this.#backoff.maxMs = timing.reconnectMaxMs;
  }

  async #watch({ runnerId }: Registration): Promise<Next> {
    this.#state = { type: "opening" };
    const { bootId } = this.#options;
    const request = { runnerId, bootId, freeSlots: this.#handler.freeSlots(), held: this.#handler.held() };
    const openedAtMs = performance.now();
    const stream = new RunStream(this.#streamHandler(), () => this.#silenceMs());
    this.#stream = stream;
    const end = await stream.read((signal) => this.#client.watchRuns(request, { signal }));
    const ageMs = performance.now() - openedAtMs;
    if (ageMs > this.#timing.reconnectMaxMs) this.#backoff.reset();
    const next = this.#afterStream(end);
    // Streams that end as soon as they are opened must not be reopened in a circle.
    return next === "reopen" && ageMs < this.#timing.reconnectMinMs ? "back-off" : next;
  }

  #silenceMs(): number {
    return Math.max(this.#options.pollTimeoutMs, 2 * this.#timing.streamKeepaliveMs);
  }

  #streamHandler(): StreamHandler {
    const handler = this.#handler;
    return {
      opened: ({ streamId }) => {
        this.#state = { type: "attached", streamId, sinceMs: performance.now() };
        this.#log.debug({ stream_id: streamId }, "stream opened");
      },
      offered: (offer) => handler.offered(offer),
      stopped: (stop) => handler.stopped(stop),
      drained: (reason) => handler.drained(reason),
      verdicts: (verdicts) => handler.verdicts(verdicts),
      directives: (directives) => this.obey(directives),
      configured: (config) => this.#adopt(timingOf(config, this.#timing)),
    };
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
        this.#log.warn(`nothing came on the stream for ${this.#silenceMs()} ms; opening another one`);
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
    if (next === "register") this.#forgetRegistration(this.#registration, "the runner was removed");
    if (next === "close") this.close({ exitCode: EXIT.refused, text: REPLACED_TEXT });
    return next === "register" ? "back-off" : next;
  }

  /** What an error of Register or of the stream means. */
  #afterFailure(error: unknown): Next {
    if (this.closing.aborted) return "close";
    const { code } = ConnectError.from(error);
    const trouble = describeConnectError(error, this.#options.url);
    const registering = this.#registration === undefined;
    this.#judge(code, error, this.#registration);
    if (registering && !this.#contacted && this.#options.onceOnly && trouble.exitCode === EXIT.unreachable) {
      this.close({ exitCode: EXIT.unreachable, text: withHint(trouble) });
    }
    if (registering && isRefusal(code)) this.close({ exitCode: EXIT.refused, text: withHint(trouble) });
    if (this.closing.aborted) return "close";
    this.#logRepeated(withHint(trouble));
    return "back-off";
  }

  /** What the code of any failed call means for the registration it was made with. */
  #judge(code: Code, error: unknown, registration: Registration | undefined): void {
    if (registration === undefined || this.#leaving || this.closing.aborted) return;
    if (code === Code.Unauthenticated) {
      const { rawMessage } = ConnectError.from(error);
      this.close({ exitCode: EXIT.refused, text: `the coordinator no longer accepts this process: ${rawMessage}` });
    }
    if (code === Code.NotFound) this.#forgetRegistration(registration, "the coordinator does not know this runner");
    if (code === Code.AlreadyExists) this.#forgetRegistration(registration, "another process has this identity");
  }

  #forgetRegistration(registration: Registration | undefined, why: string): void {
    if (registration === undefined || registration !== this.#registration || this.#leaving) return;
    this.#log.warn(`${why}; registering again`);
    this.#registration = undefined;
    this.#registered = Promise.withResolvers();
    this.#stream?.abort();
    this.#wake.resolve();
  }

  async #untilMissing(): Promise<void> {
    if (this.#state.type !== "closed") this.#state = { type: "superseded" };
    this.#wake = Promise.withResolvers();
    await abortable(this.#wake.promise, this.closing).catch(() => undefined);
  }

  async #backOff(): Promise<void> {
    if (this.#state.type !== "closed") this.#state = { type: "backing-off" };
    await this.#sleep(this.#backoff.next());
  }

  async #sleep(waitMs: number): Promise<void> {
    // An abort ends the wait, and the loop that waits sees it.
    await delay(waitMs, undefined, { signal: this.closing }).catch(() => undefined);
  }

  /** Logs the 1st, 2nd, 4th, 8th … failure in a row, so that a long absence does not fill the log. */
  #logRepeated(text: string): void {
    const { failures } = this.#backoff;
    if ((failures & (failures - 1)) === 0) this.#log.warn({ failures: failures + 1 }, text);
  }
}

function withHint({ text, hint }: { text: string; hint: string | undefined }): string {
  return hint === undefined ? text : `${text}; ${hint}`;
}
