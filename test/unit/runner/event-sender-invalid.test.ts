import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { ExecutorEventSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorEvent } from "../../../gen/agentrunner/v1/executor_pb.ts";
import {
  AppendEventsResponseSchema,
  EventBatchVerdictSchema,
  ReportVerdict_Kind,
} from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { createLogger } from "../../../lib/log.ts";
import { EventSender } from "../../../runner/reports/event-sender.ts";

const lease = { runId: "run_1", leaseId: "lease_1", storeId: "store_a" };

function output(text: string): ExecutorEvent {
  return create(ExecutorEventSchema, { event: { case: "output", value: { text } } });
}

function textOf({ event }: ExecutorEvent): string {
  return event.case === "output" ? event.value.text : `${event.case}`;
}

it("an event that the coordinator names as invalid is given up alone, with a marker in its place", async () => {
  const stored: string[] = [];
  const uplink = {
    ready: () => Promise.resolve("store_a"),
    obey: () => undefined,
    pause: () => Promise.resolve(),
    closing: new AbortController().signal,
  };
  const log = createLogger({ name: "test", level: "error", format: "json", destination: { write: () => undefined } });
  const sender = new EventSender(
    uplink,
    ([batch]) => {
      const { firstSeq = 1n, events = [] } = batch ?? {};
      expect(Number(firstSeq)).toBe(stored.length + 1);
      const bad = events.findIndex((event) => textOf(event) === "bad");
      stored.push(...(bad === -1 ? events : events.slice(0, bad)).map(textOf));
      const committedSeq = BigInt(stored.length);
      const fault = { kind: ReportVerdict_Kind.INVALID, invalidSeq: committedSeq + 1n, message: "event: too long" };
      const verdict = bad === -1 ? { kind: ReportVerdict_Kind.OK } : fault;
      const verdicts = [create(EventBatchVerdictSchema, { leaseId: "lease_1", committedSeq, ...verdict })];
      return Promise.resolve(create(AppendEventsResponseSchema, { verdicts }));
    },
    log,
    () => undefined,
  );
  for (const text of ["a", "b", "bad", "c", "bad", "d"]) sender.append(lease, output(text));
  expect(await sender.finish("lease_1", 5_000)).toBe(0);
  expect(stored).toEqual(["a", "b", "dropped", "c", "dropped", "d"]);
});
