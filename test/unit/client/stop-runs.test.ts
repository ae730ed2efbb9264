import { createRouterTransport } from "@connectrpc/connect";
import { expect, it } from "vitest";
import { servicesOver } from "../../../client/connect.ts";
import { stopRuns } from "../../../client/stop-runs.ts";
import { RunService } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import { OPEN_STATES } from "../../../lib/protocol/final.ts";

/** Stops the runs of a session that has these open, two a page; says what was asked for, in order. */
async function stopped(open: readonly string[], lastRunId = "run_last") {
  const asked: string[] = [];
  const transport = createRouterTransport((router) =>
    router.service(RunService, {
      listRuns: ({ states, sessionId, pageToken }) => {
        expect([states, sessionId]).toEqual([OPEN_STATES, "ses_1"]);
        const from = Number(pageToken || 0);
        const nextPageToken = from + 2 < open.length ? String(from + 2) : "";
        return { runs: open.slice(from, from + 2).map((runId) => ({ runId })), nextPageToken };
      },
      stopRun: ({ runId, reason, cascade }) => {
        asked.push(`${runId} ${reason} ${cascade}`);
        return { run: { runId } };
      },
    }),
  );
  const how = { reason: "enough", cascade: true };
  const answers = [];
  for await (const { answer, wasOpen } of stopRuns(servicesOver(transport), { sessionId: "ses_1", lastRunId }, how)) {
    answers.push(`${answer.run?.runId} ${wasOpen}`);
  }
  return { asked, answers };
}

it("stops every open run of a session, however many pages they are, and else asks for its last", async () => {
  expect(await stopped(["run_c", "run_b", "run_a"])).toEqual({
    asked: ["run_c enough true", "run_b enough true", "run_a enough true"],
    answers: ["run_c true", "run_b true", "run_a true"],
  });
  expect(await stopped([])).toEqual({ asked: ["run_last enough true"], answers: ["run_last false"] });
  expect(await stopped([], "")).toEqual({ asked: [], answers: [] });
});
