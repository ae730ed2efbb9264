import { EventEmitter, once } from "node:events";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ServiceImpl } from "@connectrpc/connect";
import { HealthCheckResponse_ServingStatus as ServingStatus } from "../../gen/grpc/health/v1/health_pb.ts";
import type { Health } from "../../gen/grpc/health/v1/health_pb.ts";

export { ServingStatus };

/** Health by service name; the empty name is the whole server. */
export interface HealthBoard {
  /** Sets one service, or every known one when `service` is absent, and tells all watchers. */
  set(status: ServingStatus, service?: string): void;
  /** The implementation of grpc.health.v1.Health. A watcher that reads slowly skips states but never misses the newest. */
  readonly implementation: ServiceImpl<typeof Health>;
}

/** A board on which the whole server and each of `services` is SERVING. */
export function createHealthBoard(services: readonly string[]): HealthBoard {
  const statuses = new Map<string, ServingStatus>(["", ...services].map((name) => [name, ServingStatus.SERVING]));
  const changes = new EventEmitter().setMaxListeners(0);
  return {
    set(status, service) {
      for (const name of service === undefined ? statuses.keys() : [service]) statuses.set(name, status);
      changes.emit("change");
    },
    implementation: {
      check({ service }) {
        const status = statuses.get(service);
        if (status === undefined) throw new ConnectError(`no service ${JSON.stringify(service)} here`, Code.NotFound);
        return { status };
      },
      async *watch({ service }, { signal }) {
        let last: ServingStatus | undefined;
        for (;;) {
          const status = statuses.get(service) ?? ServingStatus.SERVICE_UNKNOWN;
          if (status !== last) yield { status: (last = status) };
          // Throws once the call is over, but not before the newest state has been sent: a stop is NOT_SERVING, then the end.
          else await once(changes, "change", { signal });
        }
      },
      list: () => ({ statuses: Object.fromEntries([...statuses].map(([name, status]) => [name, { status }])) }),
    },
  };
}
