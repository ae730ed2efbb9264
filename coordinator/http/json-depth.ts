import { Code, ConnectError } from "@connectrpc/connect";
import type { Interceptor } from "@connectrpc/connect";
import { RunnerService } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { depthProblem } from "../../lib/protocol/depth.ts";

/** Batches: one item that is too deep must not refuse the others, and gets its own verdict. */
const BY_ITEM: ReadonlySet<unknown> = new Set([RunnerService.method.reportStatus, RunnerService.method.appendEvents]);

/** Refuses requests with JSON that is nested too deep. */
export const boundedJson: Interceptor = (next) => (request) => {
  if (!request.stream && !BY_ITEM.has(request.method)) {
    const problem = depthProblem(request.method.input, request.message);
    if (problem !== undefined) throw new ConnectError(problem, Code.InvalidArgument);
  }
  return next(request);
};
