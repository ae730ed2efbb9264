import { afterEach, expect, it, vi } from "vitest";
import { CommitError } from "../../../../lib/sqlite.ts";
import { Rarely } from "../../../../lib/log-rarely.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import { held, RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

const LEASE_MS = 60_000;

it.each([
  ["", 600_000],
  [", also without a grace after a start", 0],
])(
  "a runner whose heartbeats could not be stored for longer than its lease loses nothing, and one that is gone is lost%s",
  async (_, restartGraceMs) => {
    const clock = { wallMs: Date.now(), steadyMs: 0 };
    // Ticks come every 20 ms, and none misses more than the clock moves between two of them.
    const c = await startTestCoordinator({ leaseTtlMs: LEASE_MS, acceptDeadlineMs: 200, restartGraceMs }, () => ({
      ...clock,
    }));
    const looks = vi.spyOn(c.store, "expire");
    const aMomentLater = async (): Promise<void> => {
      clock.wallMs += 5_000;
      clock.steadyMs += 5_000;
      const before = looks.mock.calls.length;
      await until(() => looks.mock.calls.length >= before + 2, "a look at what is due");
    };
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    const full = vi.spyOn(c.store, "beat").mockRejectedValue(new CommitError(new Error("database or disk is full")));
    for (let ms = 0; ms < 2 * LEASE_MS; ms += 5_000) {
      await expect(runner.beat(held(offer))).rejects.toThrow(/disk is full/);
      await aMomentLater();
    }
    full.mockRestore();
    // The ticks come first, as they do for a runner with a heartbeat of 10 s.
    await aMomentLater();
    expect(await c.state(runId)).toBe("RUNNING");
    const graces = c.logged.filter(({ why }) => why === "the store could not be written");
    expect(graces).toHaveLength(1);
    expect(await runner.beat(held(offer))).toEqual(["RENEWED"]);
    for (let ms = 0; ms < 2 * LEASE_MS; ms += 5_000) await aMomentLater();
    expect(await c.state(runId)).toBe("FAILED");
  },
);

it("what comes again and again is said at once, and then once an interval with its number", () => {
  let nowMs = 0;
  const rarely = new Rarely(10_000, () => nowMs);
  const said = [0, 1, 9_999, 10_000, 10_001, 25_000].map((ms) => {
    nowMs = ms;
    return rarely.again();
  });
  expect(said).toEqual([1, undefined, undefined, 3, undefined, 2]);
});
