import { notFound } from "../../lib/rpc/error-info.ts";
import type { ConnectRouter } from "@connectrpc/connect";
import { FleetService } from "../../gen/agentrunner/v1/fleet_service_pb.ts";
import { Runner_Presence } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { Runner } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { Coordinator } from "../coordinator.ts";
import type { RunnerRecord } from "../store/store.ts";
import { pageSizeOf } from "./page-size.ts";

/** What clients call to see and manage runners. Comments and errors are in fleet_service.proto. */
export function mountFleetService(router: ConnectRouter, coordinator: Coordinator): void {
  const { store, dispatcher } = coordinator;

  const seen = ({ runner, bootId, lastHeardAt }: RunnerRecord): Runner => {
    runner.presence = Runner_Presence[dispatcher.presence(runner.runnerId, bootId, lastHeardAt)];
    return runner;
  };

  router.service(FleetService, {
    async listRunners(request) {
      const page = await store.listRunners(pageSizeOf(request), request.pageToken);
      return { runners: page.items.map(seen), nextPageToken: page.next };
    },

    async getRunner({ runnerId }) {
      const [record] = await store.runnerFacts([runnerId]);
      if (record === undefined) throw notFound("RUNNER_NOT_FOUND", `no runner ${runnerId}`);
      return { runner: seen(record) };
    },

    async drainRunner({ runnerId, reason }) {
      return { runner: seen(await coordinator.drainRunner(runnerId, reason || "drained by a user")) };
    },

    async removeRunner({ runnerId }) {
      return { lostRunIds: await coordinator.removeRunner(runnerId) };
    },
  });
}
