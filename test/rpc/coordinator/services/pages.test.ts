import { afterEach, describe, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import { RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

describe("the plain pages", () => {
  it("say that it lives, and that it can write", async () => {
    const c = await startTestCoordinator({ memory: false });
    expect(await c.page("/health")).toEqual({ status: 200, text: "ok\n" });
    expect(await c.page("/ready")).toEqual({ status: 200, text: "ready\n" });
  });

  it("say at the root what this is and where to look further", async () => {
    const c = await startTestCoordinator();
    const { status, text } = await c.page("/");
    expect(status).toBe(200);
    expect(text).toMatch(/^agent-coordinator \d+\.\d+\.\d+, protocol 1/);
    for (const word of ["/health", "/ready", "/metrics", "/mcp", "docs/", "ao -c "]) expect(text).toContain(word);
  });

  it("serve metrics that Prometheus reads: every line is a comment or a number", async () => {
    const c = await startTestCoordinator();
    const answer = await fetch(`${c.url}/metrics`);
    expect(answer.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
    for (const line of (await answer.text()).trimEnd().split("\n")) {
      expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{[^}]*\})? [-+.\deE]+|)$/);
    }
  });
});

describe("the metrics", () => {
  it("follow a run from its creation to its end", async () => {
    const c = await startTestCoordinator({ memory: false });
    const state = (name: string) => c.metric(`agent_runs{state="${name}"}`);
    await c.create();
    expect(await state("PENDING")).toBe(1);
    const waits = () => c.metric("agent_oldest_pending_seconds");
    await until(async () => (await waits()) > 0, "the oldest pending run has an age");
    expect(await c.metric("agent_runners")).toBe(0);
    const runner = await RawRunner.online(c);
    const offer = await runner.offer();
    expect([await state("PENDING"), await state("OFFERED"), await waits()]).toEqual([0, 1, 0]);
    expect(await c.metric("agent_runners")).toBe(1);
    expect(await c.metric("agent_runner_streams")).toBe(1);
    expect(await c.metric("agent_free_slots")).toBe(3);
    await runner.accepted(offer);
    expect(await state("CLAIMED")).toBe(1);
    expect(await c.metric("agent_offer_accept_seconds_count")).toBe(1);
    await runner.ok(offer, "STARTED");
    expect(await state("RUNNING")).toBe(1);
    await c.runs.stopRun({ runId: offer.runId });
    expect(await state("STOPPING")).toBe(1);
    await runner.ok(offer, "COMPLETED");
    expect(await state("STOPPING")).toBe(0);
    expect(await c.metric('agent_runs_ended_total{state="COMPLETED"}')).toBe(1);
    expect(await c.metric("agent_free_slots")).toBe(4);
    expect(await c.metric('agent_reports_total{verdict="OK"}')).toBe(3);
    await runner.report(offer, "FAILED");
    expect(await c.metric('agent_reports_total{verdict="STALE"}')).toBe(1);
    await runner.stream.leave();
    await until(async () => (await c.metric("agent_runner_streams")) === 0, "no stream is open");
    expect(await c.metric("agent_free_slots")).toBe(0);
  });

  it("count lost leases, commits, and measure the store, the loop and the memory", async () => {
    const c = await startTestCoordinator({ memory: false });
    const runner = await RawRunner.online(c);
    await c.create();
    await runner.take();
    expect(await c.metric("agent_leases_lost_total")).toBe(0);
    await c.fleet.removeRunner({ runnerId: runner.runnerId });
    expect(await c.metric("agent_leases_lost_total")).toBe(1);
    expect(await c.metric('agent_runs_ended_total{state="FAILED"}')).toBe(1);
    expect(await c.metric("agent_store_commit_seconds_count")).toBeGreaterThan(3);
    expect(await c.metric("agent_store_commands_total")).toBeGreaterThan(3);
    expect(await c.metric("agent_store_bytes")).toBeGreaterThan(4096);
    expect(await c.metric("process_resident_memory_bytes")).toBeGreaterThan(1_000_000);
    expect(await c.metric('agent_event_loop_lag_seconds{quantile="0.99"}')).toBeGreaterThanOrEqual(0);
  });
});
