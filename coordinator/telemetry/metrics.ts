import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { RunStateSchema } from "../../gen/agentrunner/v1/run_pb.ts";
import { OPEN_STATES } from "../../lib/protocol/final.ts";
import type { Changes, StoreGauges } from "../store/store.ts";

const SECONDS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60];

/** What the runners look like at the moment of a scrape. */
export interface FleetGauges {
  readonly registered: number;
  readonly streams: number;
  readonly freeSlots: number;
}

/** Figures in the text format of Prometheus. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #ended = this.#counter("agent_runs_ended_total", "Runs that became final", ["state"]);
  readonly #lost = this.#counter("agent_leases_lost_total", "Leases that were lost");
  readonly #verdicts = this.#counter("agent_reports_total", "Reports of runners by verdict", ["verdict"]);
  readonly #accept = this.#histogram("agent_offer_accept_seconds", "Time from an offer to its accept");
  readonly #commit = this.#histogram("agent_store_commit_seconds", "Time of a commit");
  readonly #commands = this.#counter("agent_store_commands_total", "Commands that were committed");
  readonly #failures = this.#counter("agent_store_failures_total", "Commits that failed");
  readonly #runs = this.#gauge("agent_runs", "Runs that are not final, by state", ["state"]);
  readonly #oldest = this.#gauge("agent_oldest_pending_seconds", "Age of the oldest pending run, 0 without one");
  readonly #runners = this.#gauge("agent_runners", "Registered runners");
  readonly #streams = this.#gauge("agent_runner_streams", "Open streams of runners");
  readonly #slots = this.#gauge("agent_free_slots", "Runs that the connected runners can take now");
  readonly #bytes = this.#gauge("agent_store_bytes", "Size of the store's file");
  readonly #lag = this.#gauge("agent_event_loop_lag_seconds", "Delay of the event loop since the last scrape", [
    "quantile",
  ]);
  readonly #memory = this.#gauge("process_resident_memory_bytes", "Resident memory");
  readonly #delay = monitorEventLoopDelay({ resolution: 10 });

  constructor() {
    this.#delay.enable();
  }

  #counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ name, help, labelNames, registers: [this.#registry] });
  }

  #gauge(name: string, help: string, labelNames: string[] = []): Gauge {
    return new Gauge({ name, help, labelNames, registers: [this.#registry] });
  }

  #histogram(name: string, help: string): Histogram {
    return new Histogram({ name, help, buckets: SECONDS, registers: [this.#registry] });
  }

  changed(changes: Changes): void {
    for (const state of changes.ended) this.#ended.inc({ state });
    if (changes.lostLeases > 0) this.#lost.inc(changes.lostLeases);
    for (const ms of changes.acceptMs) this.#accept.observe(ms / 1000);
  }

  reported(verdict: string): void {
    this.#verdicts.inc({ verdict });
  }

  committed(commitMs: number, commands: number): void {
    this.#commit.observe(commitMs / 1000);
    this.#commands.inc(commands);
  }

  commitFailed(): void {
    this.#failures.inc();
  }

  async text(store: StoreGauges, fleet: FleetGauges, now: number): Promise<string> {
    for (const number of OPEN_STATES) {
      const state = RunStateSchema.value[number]?.localName ?? "";
      this.#runs.set({ state }, store.openRuns[state] ?? 0);
    }
    this.#oldest.set(store.oldestPendingAt === undefined ? 0 : (now - store.oldestPendingAt) / 1000);
    this.#runners.set(fleet.registered);
    this.#streams.set(fleet.streams);
    this.#slots.set(fleet.freeSlots);
    this.#bytes.set(store.fileBytes);
    this.#memory.set(process.memoryUsage.rss());
    for (const quantile of ["0.5", "0.99"]) {
      this.#lag.set({ quantile }, this.#delay.percentile(Number(quantile) * 100) / 1e9);
    }
    this.#lag.set({ quantile: "1" }, this.#delay.max / 1e9);
    this.#delay.reset();
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  close(): void {
    this.#delay.disable();
  }
}
