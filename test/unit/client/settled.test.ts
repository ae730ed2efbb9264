import { create } from "@bufbuild/protobuf";
import { createRouterTransport } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { servicesOver } from "../../../client/connect.ts";
import { Cursors } from "../../../client/cursors.ts";
import { afterRun, untilSettled, untilTreeSettled } from "../../../client/settled.ts";
import { RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { RunService } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import { Notification_State, SessionStatus } from "../../../gen/agentrunner/v1/session_pb.ts";
import { SessionService, WatchSessionResponseSchema } from "../../../gen/agentrunner/v1/session_service_pb.ts";

const signal = new AbortController().signal;

interface Event {
  readonly sessionId: string;
  readonly runId: string;
  readonly state: RunState;
}

/**
 * The sessions `boss` and its child `low`, in a log of transitions whose cursors are `at 1`, `at 2`, …. A run that has a
 * PENDING and no end is the active one. A stream that has sent the whole log plays the next of `to come`.
 */
class World {
  readonly log: Event[] = [];
  /** What happens when a watcher has read all there is, one a time. */
  readonly toCome: (() => void)[] = [];
  /** Every WatchSession call. */
  readonly opened: string[] = [];
  /** Sessions of which the first event of a run was looked up. */
  readonly lookedUp: string[] = [];
  /** Events that were sent, of all streams. */
  sent = 0;
  /** Runs that tell `boss` of `low`. */
  readonly tellers: string[] = [];
  callbackOwed = false;
  /** Runs of `boss`, as the coordinator made them. */
  runs: string[] = [];

  happen(sessionId: string, runId: string, ...states: RunState[]): void {
    for (const state of states) this.log.push({ sessionId, runId, state });
  }

  /** A session that has run often. */
  history(sessionId: string, runs: number): void {
    for (let i = 0; i < runs; i += 1)
      this.happen(sessionId, `${sessionId} old ${i}`, RunState.PENDING, RunState.COMPLETED);
  }

  #session(sessionId: string) {
    const own = this.log.filter((event) => event.sessionId === sessionId);
    const open = own.find(({ runId }) => !own.some((it) => it.runId === runId && it.state === RunState.COMPLETED));
    return {
      sessionId,
      activeRunId: open?.runId ?? "",
      lastRunId: own.at(-1)?.runId ?? "",
      status: open === undefined ? SessionStatus.IDLE : SessionStatus.RUNNING,
      childSessionIds: sessionId === "boss" ? ["low"] : [],
      callbackOwed: sessionId === "low" && this.callbackOwed,
      notifications:
        sessionId === "low" ? [] : this.tellers.map((runId) => ({ runId, state: Notification_State.CONSUMED })),
    };
  }

  services() {
    return servicesOver(
      createRouterTransport((router) => {
        router.service(RunService, {
          getRun: ({ runId }) => {
            const last = this.log.findLast((event) => event.runId === runId);
            return { run: { runId, sessionId: "boss", state: last?.state ?? RunState.UNSPECIFIED } };
          },
          // Two a page, newest first.
          listRuns: ({ pageToken }) => {
            const from = Number(pageToken || 0);
            const all = this.runs.toReversed();
            const next = from + 2 < all.length ? String(from + 2) : "";
            return { runs: all.slice(from, from + 2).map((runId) => ({ runId })), nextPageToken: next };
          },
        });
        router.service(SessionService, {
          getSession: ({ sessionId }) => ({ session: this.#session(sessionId) }),
          listSessions: ({ parentSessionId }) => ({
            sessions: parentSessionId === "boss" ? [this.#session("low")] : [],
          }),
          listSessionEvents: ({ sessionId, runId, pageSize }) => {
            expect(pageSize).toBe(1);
            this.lookedUp.push(sessionId);
            const at = this.log.findIndex((event) => event.sessionId === sessionId && event.runId === runId);
            return { nextCursor: `at ${at + 1}` };
          },
          watchSession: (request, context) => this.#watch(request, context.signal),
        });
      }),
    );
  }

  async *#watch({ sessionId, cursor }: { sessionId: string; cursor: string }, left: AbortSignal) {
    this.opened.push(`${sessionId} ${cursor}`);
    for (let at = Number(cursor.split(" ")[1] ?? 0); !left.aborted;) {
      const event = this.log[at];
      if (event === undefined) {
        const next = this.toCome.shift();
        if (next === undefined) throw new Error("nothing more is to come");
        next();
        continue;
      }
      at += 1;
      if (event.sessionId !== sessionId) continue;
      this.sent += 1;
      const { runId, state } = event;
      const value = { runId, event: { case: "transition" as const, value: { state } } };
      yield create(WatchSessionResponseSchema, { cursor: `at ${at}`, update: { case: "event", value } });
    }
  }
}

describe("waiting for a session that has run often", () => {
  it("is sent nothing from before the run that is open", async () => {
    const world = new World();
    world.history("boss", 1_000);
    world.happen("boss", "now", RunState.PENDING, RunState.RUNNING);
    world.toCome.push(() => world.happen("boss", "now", RunState.COMPLETED));
    expect(await untilSettled(world.services(), "boss", { signal })).toBe(true);
    expect([world.opened, world.sent]).toEqual([["boss at 2001"], 2]);
  });

  it("asks for no events when it has settled", async () => {
    const world = new World();
    world.history("boss", 1_000);
    expect(await untilSettled(world.services(), "boss", { signal })).toBe(true);
    expect(world.opened).toEqual([]);
  });

  it("goes on where the wait before it with the same cursors has ended", async () => {
    const world = new World();
    const cursors = new Cursors();
    for (const run of ["a", "b"]) {
      world.happen("boss", run, RunState.PENDING);
      world.toCome.push(() => world.happen("boss", run, RunState.RUNNING, RunState.COMPLETED));
      expect(await untilSettled(world.services(), "boss", { signal, cursors })).toBe(true);
    }
    expect([world.opened, world.sent]).toEqual([["boss at 1", "boss at 3"], 5]);
  });

  it("reads no event of a tree twice, however often a session of it gets work again", async () => {
    const world = new World();
    const round = (i: number) => {
      world.happen("low", `round ${i}`, RunState.PENDING);
      world.toCome.push(() => {
        world.happen("low", `round ${i}`, RunState.COMPLETED);
        if (i < 50) world.happen("boss", `boss ${i}`, RunState.PENDING);
        if (i < 50)
          world.toCome.push(() => {
            round(i + 1);
            world.happen("boss", `boss ${i}`, RunState.COMPLETED);
          });
      });
    };
    world.history("boss", 100);
    world.history("low", 100);
    round(0);
    expect(await untilTreeSettled(world.services(), "boss", { signal })).toBe(true);
    expect(world.sent).toBeLessThanOrEqual(world.log.length - 400);
    expect(world.lookedUp).toEqual(["low", "boss"]);
  });
});

describe("afterRun", () => {
  const run = { sessionId: "boss", runId: "run_5" };
  const after = (world: World, cursors = new Cursors()) => afterRun(world.services(), run, { signal, cursors });

  function ended(runs: readonly string[], ...tellers: string[]): World {
    const world = new World();
    world.runs = [...runs];
    world.tellers.push(...tellers);
    for (const runId of runs) world.happen("boss", runId, RunState.PENDING, RunState.COMPLETED);
    return world;
  }

  it("finds the run that was made next, whatever the clock gave it for an id", async () => {
    // The clock was set back after run_5: what came later sorts before it.
    expect(await after(ended(["run_4", "run_5", "run_1", "run_2"], "run_4", "run_2", "run_1"))).toEqual({
      type: "resumed",
      runId: "run_1",
    });
    // And ahead before it: what came earlier sorts after it.
    expect(await after(ended(["run_8", "run_9", "run_5"], "run_8", "run_9"))).toEqual({ type: "nothing" });
  });

  it("takes no run that others queued, and looks through no list when nobody was told", async () => {
    const queued = ended(["run_5", "run_6", "run_7", "run_8"], "run_8");
    expect(await after(queued)).toEqual({ type: "resumed", runId: "run_8" });
    expect(await after(ended(["run_5", "run_6"]))).toEqual({ type: "nothing" });
    expect(await after(ended(["run_5", "run_6"], "run_5"))).toEqual({ type: "nothing" });
  });

  it("finds nothing after a run that the list does not have any more", async () => {
    const world = ended(["run_5", "run_6"], "run_6");
    world.runs = ["run_6"];
    expect(await after(world)).toEqual({ type: "nothing" });
  });

  it("is sent only what happens after the run, and waits for what a child is still to tell", async () => {
    const world = new World();
    world.history("boss", 500);
    world.happen("boss", "run_5", RunState.PENDING, RunState.COMPLETED);
    world.runs = ["run_5"];
    world.callbackOwed = true;
    world.toCome.push(() => {
      world.callbackOwed = false;
      world.tellers.push("run_6");
      world.runs.push("run_6");
      world.happen("boss", "run_6", RunState.PENDING);
    });
    const cursors = new Cursors();
    cursors.reached("boss", "at 1002");
    expect(await after(world, cursors)).toEqual({ type: "resumed", runId: "run_6" });
    expect([world.opened, world.sent]).toEqual([["boss at 1002"], 1]);
  });
});
