import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { SessionDirs } from "../../../runner/execution/session-dirs.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../support/coordinator.ts";
import { FakeCoordinator } from "../../support/fake-coordinator.ts";
import { atEnd, cleanUp, startTestRunner, tempDir } from "../../support/test-runner.ts";
import { until } from "../../support/until.ts";

afterEach(async () => {
  await cleanUp();
  await stopTestCoordinators();
});

const note = () => undefined;

it("a runner that starts removes the folders of sessions that its coordinator has no more, and no other", async () => {
  const coordinator = await startTestCoordinator();
  const { storeId } = await coordinator.runners.register({
    hostname: "h",
    projectDir: "/p",
    executorProfile: "x",
    bootId: "b",
  });
  const { sessionId } = await coordinator.create();
  const stateDir = tempDir();
  const dirs = new SessionDirs(stateDir);
  for (const id of [sessionId, "ses_gone", `ses_${"0".repeat(100)}`]) dirs.make({ sessionId: id, storeId });
  dirs.make({ sessionId: "ses_other", storeId: "store_other" });
  const { log } = await startTestRunner({ url: coordinator.url, note }, { stateDir, instant: true });
  await until(() => log.some((line) => line.includes("its folder was removed")), "a folder is removed");
  const left = readdirSync(join(stateDir, "sessions")).filter((name) => !name.startsWith("."));
  expect(left).toEqual([sessionId, "ses_other", `ses_${"0".repeat(100)}`].sort());
});

it("a coordinator that knows no sessions, or a proxy that answers 404, makes no runner remove anything", async () => {
  const fake = await new FakeCoordinator().start();
  atEnd(() => fake.stop());
  fake.proxyAnswer = (path) => (path.includes("SessionService") ? 404 : undefined);
  const stateDir = tempDir();
  new SessionDirs(stateDir).make({ sessionId: "ses_1", storeId: fake.storeId });
  const { log } = await startTestRunner(fake, { stateDir });
  await until(() => log.some((line) => line.includes("were not looked through")), "the pass is given up");
  expect(readdirSync(join(stateDir, "sessions"))).toEqual(["ses_1"]);
});
