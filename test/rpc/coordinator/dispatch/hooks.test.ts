import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators, tempDir } from "../../../support/coordinator.ts";
import { RawRunner } from "../../../support/raw-runner.ts";

afterEach(stopTestCoordinators);

it("a run of an agent with hooks is offered with them, and to no runner that does not say that it executes them", async () => {
  const agentsDir = tempDir();
  mkdirSync(join(agentsDir, "hooked"));
  const hooks = { on_run_start: { command: ["./check"], on_error: "block" } };
  writeFileSync(join(agentsDir, "hooked/agent.json"), JSON.stringify({ hooks }));
  const c = await startTestCoordinator({ agentsDir });
  const old = await RawRunner.online(c, { hostname: "old" });
  const { runId } = await c.create({ agentName: "hooked" });
  const { pendingReasons } = await c.run(runId);
  expect(pendingReasons.join("\n")).toContain("cannot do what the agent needs (hooks); a newer runner can");
  const able = await RawRunner.online(c, { hostname: "able", capabilities: ["hooks"] });
  const offer = await able.offer();
  expect(offer).toMatchObject({ runId, hooks: { onRunStart: { command: ["./check"] } } });
  // The other goes on with what it can do.
  const plain = await c.create({ demands: { hostname: "old" } });
  expect((await old.offer()).runId).toBe(plain.runId);
});
