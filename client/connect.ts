import { createClient } from "@connectrpc/connect";
import type { Client, Transport } from "@connectrpc/connect";
import { BlueprintService } from "../gen/agentrunner/v1/blueprint_service_pb.ts";
import { FleetService } from "../gen/agentrunner/v1/fleet_service_pb.ts";
import { RunService } from "../gen/agentrunner/v1/run_service_pb.ts";
import { SessionService } from "../gen/agentrunner/v1/session_service_pb.ts";
import { bearer } from "../lib/rpc/bearer.ts";
import { connectTransport } from "../lib/rpc/transport.ts";
import type { CoordinatorLink, TransportOptions } from "../lib/rpc/transport.ts";

/** What a coordinator offers to people, agents and their programs. */
export interface Services {
  readonly runs: Client<typeof RunService>;
  readonly sessions: Client<typeof SessionService>;
  readonly fleet: Client<typeof FleetService>;
  readonly blueprints: Client<typeof BlueprintService>;
}

export interface ConnectOptions extends TransportOptions {
  /** Token that every call carries; without one the caller is a local user. */
  readonly token?: string | undefined;
}

/** The services of one coordinator, and the connection to it. */
export interface CoordinatorClient extends Services {
  readonly link: CoordinatorLink;
  /** Ends the connection; calls in flight end with CANCELED. */
  readonly close: () => void;
}

/** The services of the coordinator at this http or https URL. Nothing is connected before the first call. */
export function connect(url: string, { token, ...options }: ConnectOptions = {}): CoordinatorClient {
  const link = connectTransport(url, options);
  return { ...servicesOver(withToken(link.transport, token)), link, close: () => link.abort() };
}

/** The services over a transport. */
export function servicesOver(transport: Transport): Services {
  return {
    runs: createClient(RunService, transport),
    sessions: createClient(SessionService, transport),
    fleet: createClient(FleetService, transport),
    blueprints: createClient(BlueprintService, transport),
  };
}

/** The transport, whose calls carry the token; as it is without one. */
export function withToken(transport: Transport, token: string | undefined): Transport {
  if (token === undefined) return transport;
  const signed = (header: ConstructorParameters<typeof Headers>[0]): Headers => {
    const headers = new Headers(header);
    headers.set("authorization", bearer(token));
    return headers;
  };
  return {
    unary: (method, signal, timeoutMs, header, input, values) =>
      transport.unary(method, signal, timeoutMs, signed(header), input, values),
    stream: (method, signal, timeoutMs, header, input, values) =>
      transport.stream(method, signal, timeoutMs, signed(header), input, values),
  };
}
