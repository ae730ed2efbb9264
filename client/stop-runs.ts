import type { MessageInitShape } from "@bufbuild/protobuf";
import type { StopRunRequestSchema, StopRunResponse } from "../gen/agentrunner/v1/run_service_pb.ts";
import { OPEN_STATES } from "../lib/protocol/final.ts";
import type { Services } from "./connect.ts";
import { PAGE_MAX, pages } from "./pages.ts";

/** What is said of each run that is stopped, besides its id. */
type How = Omit<MessageInitShape<typeof StopRunRequestSchema>, "$typeName" | "runId">;

/** The answer to one stop, and whether its run was open before. */
export interface StopAnswer {
  readonly answer: StopRunResponse;
  readonly wasOpen: boolean;
}

/**
 * Asks for the end of every run of a session that has not ended, and tells of each. Where none is open it is the last run that is
 * asked for: that one stays as it is, and with `cascade` what is open below its session is stopped all the same.
 */
export async function* stopRuns(
  { runs }: Pick<Services, "runs">,
  { sessionId, lastRunId }: { readonly sessionId: string; readonly lastRunId: string },
  how: How,
  signal?: AbortSignal,
): AsyncGenerator<StopAnswer, void> {
  const options = signal === undefined ? {} : { signal };
  const open: string[] = [];
  const listed = pages((pageToken) =>
    runs.listRuns({ sessionId, states: [...OPEN_STATES], pageSize: PAGE_MAX, pageToken }, options),
  );
  for await (const page of listed) open.push(...page.runs.map(({ runId }) => runId));
  const last = open.length === 0 && lastRunId !== "" ? [lastRunId] : [];
  // Newest first: what waits must not start when what runs has ended.
  for (const runId of [...open, ...last]) {
    yield { answer: await runs.stopRun({ ...how, runId }, options), wasOpen: last.length === 0 };
  }
}
