import { afterEach, expect, it } from "vitest";
import { LoopProbe } from "../../../bench/loop-probe.ts";
import { startTestServer, stopTestServers } from "../../support/test-server.ts";
import { until } from "../../support/until.ts";

afterEach(stopTestServers);

it("fails, instead of waiting for ever, when the coordinator that it asks has ended", async () => {
  const { url } = await startTestServer();
  const probe = await LoopProbe.start(url);
  await probe.begin();
  expect(await probe.end()).toBeGreaterThan(0);
  await stopTestServers();
  const failure = await until(
    () =>
      probe.end().then(
        () => undefined,
        (error: unknown) => error,
      ),
    "the probe fails",
  );
  expect(String(failure)).toContain("does not answer Health.Check any more");
  await expect(probe.begin()).rejects.toThrow("Health.Check");
  probe.close();
});
