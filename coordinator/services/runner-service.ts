import { create } from "@bufbuild/protobuf";
import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ConnectRouter, ServiceImpl } from "@connectrpc/connect";
import { newToken, tokenHash } from "../../lib/ids.ts";
import {
  EVENT_CHUNK_MAX_BYTES,
  MESSAGE_MAX_BYTES,
  OUTPUT_MAX_BYTES,
  RESULT_PART_MAX_BYTES,
  STDERR_TAIL_MAX_BYTES,
} from "../../lib/protocol/limits.ts";
import { VERSION } from "../../lib/version.ts";
import { RunnerConfigSchema } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { RunnerConfig } from "../../gen/agentrunner/v1/runner_pb.ts";
import { ReportVerdict_Kind, RunnerService } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { CoordinatorConfig } from "../config.ts";
import type { Coordinator } from "../coordinator.ts";
import { judgedResults } from "./judged.ts";
import { PROTOCOL, protocolVersion } from "../../lib/protocol/version.ts";
import { sortBatches, sortReports } from "./valid-items.ts";
import { PROGRAMS } from "../http/bodies.ts";
import { RunnerStream } from "../dispatch/runner-stream.ts";

/** Names of verdicts by number, for the metrics. */
const VERDICT_NAMES = new Map<number, string>(Object.entries(ReportVerdict_Kind).map(([name, kind]) => [kind, name]));

/** What runners call. Comments and errors are in runner_service.proto. */
export function mountRunnerService(router: ConnectRouter, coordinator: Coordinator): void {
  const { store, dispatcher, config, metrics } = coordinator;
  const settings = runnerConfig(config);
  const terms = {
    leaseTtlMs: config.leaseTtlMs,
    suitable: (demandClass: string) => dispatcher.suitable(demandClass),
  };

  const implementation: ServiceImpl<typeof RunnerService> = {
    async register(request) {
      const protocol = protocolVersion(request.protocolMin, request.protocolMax);
      if (protocol === undefined) {
        throw new ConnectError(
          `this coordinator speaks protocol ${PROTOCOL.min} to ${PROTOCOL.max}, the runner ${request.protocolMin} to ` +
            `${request.protocolMax}: upgrade the older side`,
          Code.FailedPrecondition,
        );
      }
      const runnerToken = newToken("lt");
      const { runnerId, verdicts } = await coordinator.registerRunner(request, tokenHash(runnerToken));
      coordinator.log.info(
        { runner_id: runnerId, hostname: request.hostname, boot_id: request.bootId },
        "runner registered",
      );
      return {
        runnerId,
        runnerToken,
        storeId: store.storeId,
        config: settings,
        serverVersion: VERSION,
        protocol,
        verdicts,
      };
    },

    async *watchRuns({ runnerId, bootId, held, freeSlots, confirmsStream }, { signal }) {
      const said = { bootId, held, freeSlots };
      const { verdicts } = await coordinator.renewal(store.beat(runnerId, said, config.leaseTtlMs, coordinator.now()));
      const stream = new RunnerStream(runnerId, bootId, confirmsStream);
      stream.send({ case: "opened", value: { streamId: stream.streamId, verdicts } });
      try {
        await dispatcher.open(stream);
        coordinator.listed(runnerId);
        yield* stream.messages(signal);
      } finally {
        await dispatcher.closed(stream);
      }
    },

    async reportStatus({ runnerId, reports }) {
      const sorted = sortReports(reports);
      const violations = await judgedResults(coordinator, sorted.valid);
      const answer = await coordinator.renewal(
        store.report(runnerId, sorted.valid, { ...terms, violations }, coordinator.now()),
      );
      const verdicts = sorted.verdicts(answer.verdicts);
      for (const { kind } of verdicts) metrics.reported(VERDICT_NAMES.get(kind) ?? "");
      coordinator.heard(runnerId);
      return { verdicts, directives: answer.directives };
    },

    async heartbeat(request) {
      const { runnerId, bootId, held, freeSlots, draining, eventLoopLag } = request;
      const said = { bootId, held, freeSlots, draining, eventLoopLagMs: eventLoopLag && durationMs(eventLoopLag) };
      const { verdicts, directives } = await coordinator.renewal(
        store.beat(runnerId, said, config.leaseTtlMs, coordinator.now()),
      );
      coordinator.listed(runnerId);
      dispatcher.proven(runnerId, request.streamId);
      const nextHeartbeat = durationFromMs(config.heartbeatMs);
      return { verdicts, directives, nextHeartbeat, streamMissing: !dispatcher.hasStream(runnerId, bootId) };
    },

    async appendEvents({ runnerId, batches }) {
      const sorted = sortBatches(batches);
      const stored = await coordinator.command(store.appendEvents(runnerId, sorted.valid, coordinator.now()));
      return { verdicts: sorted.verdicts(stored.verdicts), directives: stored.directives };
    },

    async deregister({ runnerId, bootId }) {
      await coordinator.deregisterRunner(runnerId, bootId);
      coordinator.log.info({ runner_id: runnerId }, "runner deregistered");
      return {};
    },
  };
  router.service(RunnerService, implementation, PROGRAMS);
}

function runnerConfig(config: CoordinatorConfig): RunnerConfig {
  return create(RunnerConfigSchema, {
    heartbeatInterval: durationFromMs(config.heartbeatMs),
    leaseTtl: durationFromMs(config.leaseTtlMs),
    acceptDeadline: durationFromMs(config.acceptDeadlineMs),
    streamKeepalive: durationFromMs(config.streamKeepaliveMs),
    streamMaxAge: durationFromMs(config.streamMaxAgeMs),
    reconnectMin: durationFromMs(config.reconnectMinMs),
    reconnectMax: durationFromMs(config.reconnectMaxMs),
    stopGrace: durationFromMs(config.stopGraceMs),
    limits: {
      messageMaxBytes: BigInt(MESSAGE_MAX_BYTES),
      eventChunkMaxBytes: BigInt(EVENT_CHUNK_MAX_BYTES),
      resultTextMaxBytes: BigInt(RESULT_PART_MAX_BYTES),
      stderrTailMaxBytes: BigInt(STDERR_TAIL_MAX_BYTES),
      outputMaxBytes: BigInt(OUTPUT_MAX_BYTES),
    },
  });
}
