import { Code, ConnectError } from "@connectrpc/connect";
import type { ConnectRouter } from "@connectrpc/connect";
import type { AgentBlueprint } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import { BlueprintService } from "../../gen/agentrunner/v1/blueprint_service_pb.ts";
import type { BlueprintDir } from "../blueprints/blueprint-dir.ts";
import { pageSizeOf } from "./page-size.ts";

/** What clients call to see and manage agent blueprints. Comments and errors are in blueprint_service.proto. */
export function mountBlueprintService(router: ConnectRouter, blueprints: BlueprintDir): void {
  router.service(BlueprintService, {
    async getBlueprint({ name }) {
      return { blueprint: await blueprints.get(name) };
    },

    async listBlueprints(request) {
      const { tags, includeDisabled, pageToken } = request;
      const query = { tags, includeDisabled, pageSize: pageSizeOf(request), pageToken };
      const { next, ...page } = await blueprints.list(query);
      return { ...page, nextPageToken: next };
    },

    async createBlueprint({ blueprint }) {
      return { blueprint: await blueprints.create(present(blueprint)) };
    },

    async updateBlueprint({ blueprint, updateMask }) {
      return { blueprint: await blueprints.update(present(blueprint), updateMask?.paths ?? []) };
    },

    async deleteBlueprint({ name }) {
      await blueprints.remove(name);
      return {};
    },
  });
}

/** The rules of the messages require it; the type does not know that. @throws ConnectError INVALID_ARGUMENT. */
function present(blueprint: AgentBlueprint | undefined): AgentBlueprint {
  if (blueprint === undefined) throw new ConnectError("blueprint is missing", Code.InvalidArgument);
  return blueprint;
}
