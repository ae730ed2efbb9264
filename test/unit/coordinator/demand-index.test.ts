import { expect, it } from "vitest";
import type { CoordinatorConfig } from "../../../coordinator/config.ts";
import { demandClass } from "../../../coordinator/core/match.ts";
import { DemandIndex } from "../../../coordinator/dispatch/demand-index.ts";
import type { Store } from "../../../coordinator/store/store.ts";
import { createLogger } from "../../../lib/log.ts";

const CLASS = demandClass({
  executorProfile: "x",
  hostname: "",
  projectDir: "",
  tags: [],
  affinityRunnerId: "",
  needs: [],
});

it("a clock that could not be stored is started again by the next run of its class, and then once", async () => {
  const stored: string[] = [];
  let full = true;
  const store = {
    setUnmatched: (key: string) => {
      stored.push(key);
      return full ? Promise.reject(new Error("the disk is full")) : Promise.resolve();
    },
    firstPending: () => Promise.resolve(undefined),
    runnerFacts: () => Promise.resolve([]),
  };
  const index = new DemandIndex({
    store: store as unknown as Store,
    config: { noMatchTimeoutMs: 0, runnerAwayMs: 60_000, heartbeatMs: 1000 } as CoordinatorConfig,
    log: createLogger({ name: "test", level: "silent", format: "json" }),
    now: Date.now,
    perform: () => undefined,
    hasStream: () => false,
    isProven: () => true,
  });
  await expect(index.pending([CLASS])).rejects.toThrow("the disk is full");
  full = false;
  await index.pending([CLASS]);
  await index.pending([CLASS]);
  expect(stored).toEqual([CLASS, CLASS]);
});
