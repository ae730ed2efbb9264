import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
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

it("a small event is not given up for an HTTP 413: what takes not even that may be taken away from there", async () => {
  const stored: string[] = [];
  let refusals = 0;
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
      const events = batch?.events ?? [];
      const large = events.some((event) => textOf(event).length > 10_000);
      if (large || refusals++ < 5) return Promise.reject(new ConnectError("HTTP 413", Code.Unknown));
      stored.push(...events.map(textOf));
      const verdict = { leaseId: "lease_1", committedSeq: BigInt(stored.length), kind: ReportVerdict_Kind.OK };
      return Promise.resolve(
        create(AppendEventsResponseSchema, { verdicts: [create(EventBatchVerdictSchema, verdict)] }),
      );
    },
    log,
    () => undefined,
  );
  sender.append(lease, output("small"));
  expect(await sender.finish("lease_1", 30_000)).toBe(0);
  sender.append(lease, output("x".repeat(20_000)));
  expect(await sender.finish("lease_1", 30_000)).toBe(0);
  expect(stored).toEqual(["small", "dropped"]);
});
