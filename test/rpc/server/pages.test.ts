import { Code } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { servicesOver } from "../../../client/connect.ts";
import { afterEach, describe, expect, it } from "vitest";
import { MESSAGE_MAX_BYTES } from "../../../lib/protocol/limits.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../support/coordinator.ts";
import type { TestCoordinator } from "../../support/coordinator.ts";
import { output, RawRunner } from "../../support/raw-runner.ts";

afterEach(stopTestCoordinators);

/** What a person with curl reads. */
async function readJson(c: TestCoordinator, method: string, request: object): Promise<Record<string, unknown>> {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify(request);
  const answer = await fetch(`${c.url}/agentrunner.v1.${method}`, { method: "POST", headers, body });
  const text = await answer.text();
  expect([answer.status, answer.status === 200 ? "" : text]).toEqual([200, ""]);
  return { ...(JSON.parse(text) as object), bytes: Buffer.byteLength(text) };
}

describe("pages fit a message in the encoding that their reader has", () => {
  it("events of control characters, which take six bytes each as JSON", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { sessionId } = await c.create();
    const offer = await runner.take();
    const events = Array.from({ length: 16 }, () => output("\0".repeat(60_000)));
    await runner.append(offer, 1, events);
    const seen: unknown[] = [];
    for (let cursor = "", more = true; more;) {
      const page = await readJson(c, "SessionService/ListSessionEvents", {
        session_id: sessionId,
        page_size: 1000,
        cursor,
      });
      expect(page["bytes"]).toBeLessThanOrEqual(MESSAGE_MAX_BYTES);
      const items = page["events"] as { executor?: { output?: { text: string } } }[];
      seen.push(...items.flatMap(({ executor }) => executor?.output?.text.length ?? []));
      cursor = String(page["next_cursor"]);
      more = page["more"] === true;
    }
    expect(seen).toEqual(events.map(() => 60_000));
  });

  it("sessions with much metadata, in either encoding", async () => {
    const c = await startTestCoordinator();
    const made: string[] = [];
    for (let n = 0; n < 5; n++) {
      made.push(
        (await c.create({ metadata: { text: `${"x".repeat(1_000_000)}${"\x01".repeat(200_000)}` } })).sessionId,
      );
    }
    const transport = createConnectTransport({ baseUrl: c.url, httpVersion: "1.1", useBinaryFormat: false });
    for (const { sessions } of [c, servicesOver(transport)]) {
      const seen: string[] = [];
      for (let pageToken = ""; ;) {
        const page = await sessions.listSessions({ pageSize: 100, pageToken });
        seen.push(...page.sessions.map(({ sessionId }) => sessionId));
        if (page.nextPageToken === "") break;
        pageToken = page.nextPageToken;
      }
      expect(seen).toEqual(made.toReversed());
    }
  });

  it("and a run that was made in binary is read whole as JSON", async () => {
    const c = await startTestCoordinator();
    const prompt = "\x01".repeat(2_900_000);
    const { runId } = await c.create({ prompt });
    const { run } = await readJson(c, "RunService/GetRun", { run_id: runId });
    expect((run as { prompt: string }).prompt.length).toBe(prompt.length);
  });
});

describe("what JSON cannot say of a time", () => {
  it.each(["timeout", "idleTimeout", "lostAfter"])("is refused in %s", async (field) => {
    const c = await startTestCoordinator();
    const made = await c.create({ [field]: { seconds: 400_000_000_000n } }).catch(() => "refused");
    if (made !== "refused") await readJson(c, "RunService/ListRuns", {});
    expect(made).toBe("refused");
  });

  it("is refused in a heartbeat, and runners are listed", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    await expect(runner.heartbeat({ eventLoopLag: { seconds: 400_000_000_000n } })).rejects.toMatchObject({
      code: Code.InvalidArgument,
      rawMessage: expect.stringContaining("event_loop_lag: has no form in JSON") as string,
    });
    expect((await readJson(c, "FleetService/ListRunners", {}))["runners"]).toHaveLength(1);
  });
});
