import { create } from "@bufbuild/protobuf";
import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import type { CoordinatorConfig } from "../../../coordinator/config.ts";
import { demandClass } from "../../../coordinator/core/match.ts";
import { Dispatcher } from "../../../coordinator/dispatch/dispatcher.ts";
import { RunnerStream } from "../../../coordinator/dispatch/runner-stream.ts";
import type { Candidate, Changes, Committed, Offered, RunnerRecord, Store } from "../../../coordinator/store/store.ts";
import { RunnerSchema } from "../../../gen/agentrunner/v1/runner_pb.ts";
import { createLogger } from "../../../lib/log.ts";

const CLASS = demandClass({
  executorProfile: "x",
  hostname: "",
  projectDir: "",
  tags: [],
  affinityRunnerId: "",
  needs: [],
});
const NOTHING: Offered = { offers: [], fullRunnerIds: [], emptyClasses: [], retryAt: undefined };

/** A question of the dispatcher to the store, which the test answers when it likes. */
interface Question {
  readonly asked: string[];
  answer(offered: Partial<Offered>): Promise<void>;
  fail(): Promise<void>;
}

/** A store in which every runner suits the one class; it answers nothing but what the test says. */
class AskedStore {
  readonly questions: Question[] = [];
  readonly #answerAll: (() => void)[] = [];
  readonly store = {
    pendingClasses: () => Promise.resolve([]),
    setUnmatched: () => Promise.resolve(),
    unmatchedClasses: () => Promise.resolve([]),
    withdrawOffers: () => Promise.resolve(committed(0)),
    directives: () => Promise.resolve([]),
    runnerFacts: (ids: readonly string[] | "all") => Promise.resolve(ids === "all" ? [] : ids.map(recordOf)),
    offer: (candidates: readonly Candidate[]) => {
      const { promise, resolve, reject } = Promise.withResolvers<Committed<Offered>>();
      this.questions.push({
        asked: candidates.map(({ runnerId }) => runnerId),
        answer: async (offered) => {
          resolve(committed({ ...NOTHING, ...offered }));
          await nextTurn();
        },
        fail: async () => {
          reject(new Error("the disk is full"));
          await nextTurn();
        },
      });
      this.#answerAll.push(() => resolve(committed(NOTHING)));
      return promise;
    },
  };

  /** Returns what is still open. */
  end(): void {
    for (const answer of this.#answerAll) answer();
  }

  /** What was asked since the last call. */
  take(): Question[] {
    return this.questions.splice(0);
  }
}

function committed<T>(value: T): Committed<T> {
  return { value, changes: {} as Changes };
}

function recordOf(runnerId: string): RunnerRecord {
  const traits = {
    runnerId,
    hostname: "h",
    projectDir: "/p",
    executorProfile: "x",
    tags: [],
    requireMatchingTags: false,
    capabilities: [],
  };
  const facts = { ...traits, maxRuns: 1, activeRuns: 0, freeSlots: 1, draining: false };
  return { runner: create(RunnerSchema), facts, bootId: "b", lastHeardAt: Date.now(), left: false };
}

const started: { fake: AskedStore; dispatcher: Dispatcher }[] = [];
afterEach(async () => {
  for (const { fake, dispatcher } of started.splice(0)) {
    const stopping = dispatcher.stop();
    fake.end();
    await stopping;
  }
});

async function dispatcherWith(runnerIds: readonly string[]) {
  const fake = new AskedStore();
  const config = { acceptDeadlineMs: 1000, streamKeepaliveMs: 60_000, streamMaxAgeMs: 60_000, runnerAwayMs: 60_000 };
  const dispatcher = new Dispatcher({
    store: fake.store as unknown as Store,
    config: config as CoordinatorConfig,
    log: createLogger({ name: "test", level: "silent", format: "json" }),
    now: Date.now,
    perform: () => undefined,
    runToken: (leaseId) => leaseId,
  });
  started.push({ fake, dispatcher });
  await dispatcher.start();
  await dispatcher.runnersChanged(runnerIds);
  for (const runnerId of runnerIds) await dispatcher.open(new RunnerStream(runnerId, "b"));
  return { fake, dispatcher };
}

describe("the dispatcher", () => {
  it("asks nothing while no run is pending, then once, and is idle when everybody was asked in vain", async () => {
    const { fake, dispatcher } = await dispatcherWith(["a", "b"]);
    expect(fake.take()).toEqual([]);
    void dispatcher.pending([CLASS]);
    const [first, ...more] = fake.take();
    expect([first?.asked, more]).toEqual([["a", "b"], []]);
    await first?.answer({});
    expect(fake.take()).toEqual([]);
  });

  it("asks once more after a wake during a round, however many there were", async () => {
    const { fake, dispatcher } = await dispatcherWith(["a"]);
    void dispatcher.pending([CLASS]);
    const [first] = fake.take();
    dispatcher.freed(["a"]);
    void dispatcher.pending([CLASS]);
    expect(fake.take()).toEqual([]);
    await first?.answer({ fullRunnerIds: ["a"], emptyClasses: [CLASS] });
    // Neither answer counts: the runner was freed, and a run became pending, after they were asked for.
    const [second] = fake.take();
    expect(second?.asked).toEqual(["a"]);
    await second?.answer({ fullRunnerIds: ["a"] });
    void dispatcher.pending([CLASS]);
    expect(fake.take()).toEqual([]);
    dispatcher.freed(["a"]);
    expect(fake.take().map(({ asked }) => asked)).toEqual([["a"]]);
  });

  it("forgets a class in which nothing is pending until something is", async () => {
    const { fake, dispatcher } = await dispatcherWith(["a"]);
    void dispatcher.pending([CLASS]);
    await fake.take()[0]?.answer({ emptyClasses: [CLASS] });
    dispatcher.freed(["a"]);
    expect(fake.take()).toEqual([]);
    void dispatcher.pending([CLASS]);
    expect(fake.take()).toHaveLength(1);
  });

  it("asks no runner that is unresponsive, until it is heard from", async () => {
    const { fake, dispatcher } = await dispatcherWith(["a", "b"]);
    dispatcher.lapsed(["a"]);
    void dispatcher.pending([CLASS]);
    const [first] = fake.take();
    expect(first?.asked).toEqual(["b"]);
    await first?.answer({});
    // One of two was asked in vain: it is asked again, and that is the end.
    await fake.take()[0]?.answer({});
    expect(fake.take()).toEqual([]);
    dispatcher.heard("b");
    expect(fake.take()).toEqual([]);
    dispatcher.heard("a");
    expect(fake.take()[0]?.asked).toEqual(["a", "b"]);
  });

  it("asks 64 at a time, in turn, until all were asked in vain", async () => {
    const runnerIds = Array.from({ length: 100 }, (_, n) => `r${n}`);
    const { fake, dispatcher } = await dispatcherWith(runnerIds);
    void dispatcher.pending([CLASS]);
    const asked: string[] = [];
    for (let [question] = fake.take(); question !== undefined; [question] = fake.take()) {
      expect(question.asked).toHaveLength(64);
      asked.push(...question.asked);
      await question.answer({});
    }
    expect(asked.slice(0, 100)).toEqual(runnerIds);
    expect(asked).toHaveLength(128);
  });

  it("asks again a second after the store failed, and not at all once it is stopped", async () => {
    const { fake, dispatcher } = await dispatcherWith(["a"]);
    void dispatcher.pending([CLASS]);
    await fake.take()[0]?.fail();
    expect(fake.take()).toEqual([]);
    void dispatcher.pending([CLASS]);
    const [again] = fake.take();
    expect(again?.asked).toEqual(["a"]);
    const stopping = dispatcher.stop();
    await again?.answer({});
    await stopping;
    void dispatcher.pending([CLASS]);
    expect(fake.take()).toEqual([]);
    expect(dispatcher.streams).toBe(0);
  });
});
