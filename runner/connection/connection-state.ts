import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { StreamClosing_Reason } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { RegisterRequestSchema } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { HeldLease } from "../../gen/agentrunner/v1/runner_pb.ts";
import { PROTOCOL } from "../../lib/protocol/version.ts";
import type { ExitCode } from "../../lib/exit-codes.ts";
import type { Log } from "../../lib/log.ts";
import type { RunStream, StreamEvent } from "./run-stream.ts";

/** Where the connection is, and what it has there. Whether the coordinator knows the runner is said by Membership. */
export type ConnectionState =
  /** Registers, or is about to. */
  | { readonly type: "registering" }
  /** Registered; the stream was asked for and has not said `opened`. */
  | { readonly type: "opening"; readonly stream: RunStream }
  /** The stream works: offers can come. */
  | { readonly type: "attached"; readonly stream: RunStream; readonly streamId: string; readonly sinceMs: number }
  /** A newer stream of this process counts. Only a heartbeat that finds none opens another: `wake` is resolved then. */
  | { readonly type: "superseded"; readonly wake: PromiseWithResolvers<void> }
  /** Waits before the next attempt. */
  | { readonly type: "backing-off" }
  | { readonly type: "closed"; readonly end: ConnectionEnd };

/** Why a connection ended for good. */
export interface ConnectionEnd {
  readonly exitCode: ExitCode;
  /** What to tell people; empty for an end that was asked for. */
  readonly text: string;
}

export interface ConnectionOptions {
  readonly url: string;
  /** PEM of the certificate authorities to trust. */
  readonly tlsCaPem: string | undefined;
  readonly bootId: string;
  /** What the runner says of itself in Register, beside `held` and the boot ids; asked at each registration. */
  readonly identity: () => MessageInitShape<typeof RegisterRequestSchema>;
  /** The process before this one, if this one may speak for it; empty otherwise. */
  readonly previousBootId: string;
  /** Longest silence on the stream, unless two keep-alives are longer. */
  readonly pollTimeoutMs: number;
  /** Give up with exit code 3 when the first contact fails. */
  readonly onceOnly: boolean;
  /** How long another live process may have the identity before this one gives up. Default: lease_ttl + 15 s. */
  readonly twinPatienceMs?: number;
  /** What to tell people when that lasts too long. */
  readonly twinHint?: string;
  /** A stream has said `opened`: the coordinator offers nothing before a heartbeat names it. */
  readonly onAttached?: () => void;
  readonly log: Log;
  readonly random?: () => number;
}

/** Id of the stream that has brought its first message; empty while there is none. */
export function streamIdOf(state: ConnectionState): string {
  return state.type === "attached" ? state.streamId : "";
}

/** What the log says of a stream that was silent for `ms`. */
export function silenceText(state: ConnectionState, ms: number): string {
  const text = `nothing came on the stream for ${ms} ms; opening another one`;
  if (state.type !== "opening") return text;
  return `${text}. Not even its first message came: a proxy on the way may keep it back (docs/guide/operating.md, Proxies)`;
}

/** What Register says. */
export function registerRequest(
  { identity, bootId, previousBootId }: ConnectionOptions,
  held: HeldLease[],
): MessageInitShape<typeof RegisterRequestSchema> {
  const { min: protocolMin, max: protocolMax } = PROTOCOL;
  return { ...identity(), bootId, previousBootId, protocolMin, protocolMax, capabilities: ["hooks"], held };
}

/** What to do after a stream, or instead of one. */
export type Next = "reopen" | "back-off" | "wait" | "register" | "close";

/** What to do when the coordinator closes the stream. A reason that only a newer runner knows is taken as a shutdown. */
export function nextAfterClosing(reason: StreamClosing_Reason): Next {
  switch (reason) {
    case StreamClosing_Reason.RECYCLE:
      return "reopen";
    case StreamClosing_Reason.SUPERSEDED:
      return "wait";
    case StreamClosing_Reason.REPLACED:
      return "close";
    case StreamClosing_Reason.REMOVED:
      return "register";
    default:
      return "back-off";
  }
}

/** True when repeating Register does not help. */
export function isRefusal(code: Code): boolean {
  return REFUSALS.has(code);
}

const REFUSALS: ReadonlySet<Code> = new Set([
  Code.AlreadyExists,
  Code.FailedPrecondition,
  Code.InvalidArgument,
  Code.PermissionDenied,
  Code.Unauthenticated,
  Code.Unimplemented,
]);

/** The run that a message of the stream is about, for the log. */
export function itemOf(event: StreamEvent): { runId?: string; leaseId?: string } {
  return event.case === "offer" || event.case === "stop" ? event.value : {};
}
