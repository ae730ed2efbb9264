import { afterEach, describe, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../support/coordinator.ts";
import type { TestCoordinator } from "../../support/coordinator.ts";
import { leaveMcp, McpAgent } from "../../support/mcp-client.ts";
import { RawRunner } from "../../support/raw-runner.ts";

afterEach(async () => {
  await leaveMcp();
  await stopTestCoordinators();
});

async function person(coordinator: TestCoordinator, headers: Record<string, string> = {}): Promise<McpAgent> {
  return McpAgent.at(`${coordinator.url}/mcp`, { headers });
}

/** A runner that completes the next run with this result. */
async function completes(runner: RawRunner, text: string, data?: Record<string, string>): Promise<string> {
  const offer = await runner.take();
  await runner.ok(offer, "COMPLETED", { result: data === undefined ? { text } : { text, data } });
  return offer.runId;
}

describe("wait_for_agent_sessions", () => {
  it("returns as soon as all have settled, with their results", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const runs = [await coordinator.create(), await coordinator.create()];
    const offers = [await runner.take(), await runner.take()];
    const agent = await person(coordinator);
    const waited = agent.call("wait_for_agent_sessions", { session_ids: runs.map(({ sessionId }) => sessionId) });
    await runner.ok(offers[0]!, "COMPLETED", { result: { text: "one" } });
    await runner.ok(offers[1]!, "FAILED", { failure: 1, message: "two" });
    const answer = await waited;
    expect(answer["open"]).toEqual([]);
    expect(answer["settled"]).toEqual([
      { session_id: runs[0]!.sessionId, run_id: runs[0]!.runId, state: "completed", result_text: "one" },
      {
        session_id: runs[1]!.sessionId,
        run_id: runs[1]!.runId,
        state: "failed",
        failure: "executor_exit",
        message: "two",
      },
    ]);
  });

  it("returns at the first that has settled with until any, and says of the others why they are open", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator, { maxConcurrentRuns: 1 });
    const [one, two] = [await coordinator.create(), await coordinator.create()];
    const agent = await person(coordinator);
    const waited = agent.call("wait_for_agent_sessions", {
      session_ids: [one.sessionId, two.sessionId],
      until: "any",
    });
    await completes(runner, "one");
    const second = await runner.take();
    expect(await waited).toMatchObject({
      settled: [{ session_id: one.sessionId, result_text: "one" }],
      open: [{ session_id: two.sessionId, run_id: second.runId }],
      next: expect.stringContaining("Call wait_for_agent_sessions again"),
    });
  });

  it("returns at its timeout with what is open and why", async () => {
    const coordinator = await startTestCoordinator();
    const { sessionId } = await coordinator.create();
    const agent = await person(coordinator);
    expect(await agent.call("wait_for_agent_sessions", { session_ids: [sessionId], timeout_seconds: 1 })).toMatchObject(
      {
        settled: [],
        open: [{ session_id: sessionId, state: "pending", pending_reasons: ["no runner is registered"] }],
      },
    );
  });

  it("refuses the caller's own session and one that does not exist", async () => {
    const coordinator = await startTestCoordinator();
    const { sessionId } = await coordinator.create();
    const agent = await person(coordinator, { "X-Agent-Session-Id": sessionId });
    expect(await agent.refusal("wait_for_agent_sessions", { session_ids: [sessionId] })).toContain("own session");
    expect(await agent.refusal("wait_for_agent_sessions", { session_ids: ["ses_x"] })).toContain("no session ses_x");
  });

  it("does not take a session for settled that waits to be called back", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const { sessionId } = await coordinator.create();
    const turn = await runner.take();
    const child = await person(coordinator, { "X-Agent-Session-Id": sessionId });
    await child.call("start_agent_session", { prompt: "grandchild", mode: "async_callback" });
    const below = await runner.take();
    await runner.ok(turn, "COMPLETED", { result: { text: "I wait" } });
    const agent = await person(coordinator);
    const wait = { session_ids: [sessionId] };
    expect(await agent.call("wait_for_agent_sessions", { ...wait, timeout_seconds: 1 })).toMatchObject({
      settled: [],
      open: [{ session_id: sessionId, status: "idle", why: expect.stringContaining("called back") }],
    });
    const waited = agent.call("wait_for_agent_sessions", wait);
    await runner.ok(below, "COMPLETED", { result: { text: "below" } });
    await completes(runner, "now I am done");
    expect((await waited)["settled"]).toMatchObject([{ result_text: "now I am done" }]);
  });
});

describe("get_agent_session_status and list_agent_sessions", () => {
  it("say where a session stands, and why its run waits", async () => {
    const coordinator = await startTestCoordinator();
    const { sessionId, runId } = await coordinator.create({ sessionName: "mine" });
    const agent = await person(coordinator);
    expect(await agent.call("get_agent_session_status", { session_id: sessionId })).toMatchObject({
      session_id: sessionId,
      session_name: "mine",
      status: "pending",
      run: { run_id: runId, state: "pending", pending_reasons: ["no runner is registered"] },
    });
    const sessions = [{ session_id: sessionId, status: "pending", last_run_id: runId }];
    expect(await agent.call("list_agent_sessions")).toMatchObject({ sessions });
    expect(await agent.call("list_agent_sessions", { status: ["idle"] })).toEqual({ sessions: [] });
  });

  it("come in pages", async () => {
    const coordinator = await startTestCoordinator();
    for (let i = 0; i < 51; i += 1) await coordinator.create();
    const agent = await person(coordinator);
    const first = await agent.call("list_agent_sessions");
    expect(first["sessions"]).toHaveLength(50);
    const second = await agent.call("list_agent_sessions", { page_token: first["next_page_token"] });
    expect(second["sessions"]).toHaveLength(1);
    expect(second["next_page_token"]).toBeUndefined();
  });
});

describe("get_agent_session_result", () => {
  it("gives a long result in pieces that together are the whole", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const whole = Array.from({ length: 9_000 }, (_, i) => `line ${i} 🙂`).join("\n");
    const agent = await person(coordinator);
    const [started] = await Promise.all([
      agent.call("start_agent_session", { prompt: "write" }),
      completes(runner, whole, { kind: "long" }),
    ]);
    const shown = String(started["result_text"]);
    expect(shown).toMatch(
      /…\[cut: 3(2000|1999) of \d+ characters shown; get_agent_session_result with offset 3\d+ gives/,
    );
    let read = "";
    for (let offset: unknown = 0; offset !== undefined;) {
      const page = await agent.call("get_agent_session_result", { session_id: started["session_id"], offset });
      expect(page).toMatchObject({ state: "completed", total_chars: whole.length, has_data: true });
      read += String(page["result_text"]);
      offset = page["next_offset"];
    }
    expect(read).toBe(whole);
    const data = { session_id: started["session_id"], part: "data", limit: 8 };
    expect(await agent.call("get_agent_session_result", data)).toMatchObject({
      result_data: '{"kind":',
      next_offset: 8,
    });
  });

  it("is refused while nothing has ended", async () => {
    const coordinator = await startTestCoordinator();
    const { sessionId } = await coordinator.create();
    const agent = await person(coordinator);
    expect(await agent.refusal("get_agent_session_result", { session_id: sessionId })).toBe(
      `${sessionId} has no result yet, because it has not ended. wait_for_agent_sessions waits for it.`,
    );
  });
});

describe("stop_agent_session", () => {
  it("stops what waits before what runs, and leaves an ended session alone", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const { sessionId } = await coordinator.create();
    const offer = await runner.take();
    const queued = await coordinator.create({ sessionId });
    const agent = await person(coordinator);
    const stop = { session_id: sessionId, reason: "enough" };
    expect(await agent.call("stop_agent_session", stop)).toMatchObject({
      stopped_run_ids: [queued.runId, offer.runId],
    });
    expect(await coordinator.state(queued.runId)).toBe("STOPPED");
    expect((await runner.stream.nth("stop")).reason).toBe("enough");
    await runner.ok(offer, "STOPPED");
    await coordinator.reached(offer.runId, "STOPPED");
    expect(await agent.call("stop_agent_session", stop)).toEqual({ session_id: sessionId, stopped_run_ids: [] });
  });

  it("stops the sessions below with include_children, also when its own run has ended", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const { sessionId } = await coordinator.create();
    const turn = await runner.take();
    const child = await coordinator.create({ parentSessionId: sessionId, demands: { hostname: "nowhere" } });
    await runner.ok(turn, "COMPLETED");
    const agent = await person(coordinator);
    const stop = { session_id: sessionId, include_children: true };
    expect(await agent.call("stop_agent_session", stop)).toMatchObject({ stopped_run_ids: [child.runId] });
    expect(await coordinator.state(child.runId)).toBe("STOPPED");
  });

  it("refuses the caller's own session", async () => {
    const coordinator = await startTestCoordinator();
    const { sessionId } = await coordinator.create();
    const agent = await person(coordinator, { "X-Agent-Session-Id": sessionId });
    for (const tool of ["stop_agent_session", "delete_agent_session"]) {
      expect(await agent.refusal(tool, { session_id: sessionId })).toContain("is your own session");
    }
    const resume = { session_id: sessionId, prompt: "x" };
    expect(await agent.refusal("resume_agent_session", resume)).toContain("is your own session");
  });
});

describe("delete_agent_session", () => {
  it("deletes a session that has ended, and refuses one at work with what to do", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const { sessionId } = await coordinator.create();
    const offer = await runner.take();
    const agent = await person(coordinator);
    const target = { session_id: sessionId };
    expect(await agent.refusal("delete_agent_session", target)).toMatch(/stop.*Nothing was changed/s);
    await runner.ok(offer, "COMPLETED");
    expect(await agent.call("delete_agent_session", target)).toEqual({ session_id: sessionId, deleted: true });
    expect(await agent.refusal("get_agent_session_status", target)).toContain(`no session ${sessionId}`);
    expect(await agent.call("list_agent_sessions")).toEqual({ sessions: [] });
  });
});

describe("a session by its name", () => {
  it("is taken by every tool that takes its id", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const agent = await person(coordinator);
    const named = { session_name: "par-1" };
    const started = await agent.call("start_agent_session", { prompt: "x", mode: "async_poll", ...named });
    expect(started).toMatchObject(named);
    const session_id = String(started["session_id"]);
    const waited = agent.call("wait_for_agent_sessions", { session_names: ["par-1"] });
    await completes(runner, "first");
    expect(await waited).toMatchObject({ settled: [{ session_id, ...named, result_text: "first" }], open: [] });
    expect(await agent.call("get_agent_session_status", named)).toMatchObject({ session_id, ...named, status: "idle" });
    expect(await agent.call("get_agent_session_result", named)).toMatchObject({ result_text: "first" });
    await coordinator.create({ parentSessionId: session_id, demands: { hostname: "nowhere" } });
    const { sessions } = await agent.call("list_agent_sessions", { parent_session_name: "par-1" });
    expect(sessions).toMatchObject([{ parent_session_id: session_id }]);
    const again = await agent.call("resume_agent_session", { prompt: "y", mode: "async_poll", ...named });
    expect(again).toMatchObject({ session_id, ...named });
    const turn = await runner.take();
    const { stopped_run_ids } = await agent.call("stop_agent_session", { ...named, include_children: true });
    expect(stopped_run_ids).toContain(again["run_id"]);
    await runner.ok(turn, "STOPPED");
    await coordinator.reached(String(again["run_id"]), "STOPPED");
    expect(await agent.call("delete_agent_session", named)).toEqual({ session_id, deleted: true });
  });

  it("is meant when session_id is no id", async () => {
    const coordinator = await startTestCoordinator();
    const { sessionId } = await coordinator.create({ sessionName: "par-1" });
    const agent = await person(coordinator);
    const status = (args: Record<string, string>) => agent.call("get_agent_session_status", args);
    expect(await status({ session_id: "par-1" })).toMatchObject({ session_id: sessionId });
    expect(await status({ session_id: sessionId, session_name: "par-1" })).toMatchObject({ session_id: sessionId });
  });

  it("is refused when there is none, when it is another than session_id, and when it is the caller's own", async () => {
    const coordinator = await startTestCoordinator();
    const { sessionId } = await coordinator.create({ sessionName: "mine" });
    const other = await coordinator.create({ sessionName: "other" });
    const agent = await person(coordinator, { "X-Agent-Session-Id": sessionId });
    expect(await agent.refusal("stop_agent_session", { session_name: "nobody" })).toContain("no session nobody");
    const both = { session_id: other.sessionId, session_name: "mine" };
    expect(await agent.refusal("delete_agent_session", both)).toContain("are two sessions. Nothing was done");
    expect(await agent.refusal("stop_agent_session", { session_name: "mine" })).toContain("is your own session");
    expect(await agent.refusal("wait_for_agent_sessions", { session_names: ["mine"] })).toContain(
      "is your own session",
    );
    expect(await coordinator.state(other.runId)).toBe("PENDING");
  });

  it("is none of an agent's business when the session is not in its tree", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const { sessionId } = await coordinator.create();
    const { runToken } = await runner.take();
    await coordinator.create({ sessionName: "stranger", demands: { hostname: "nowhere" } });
    const headers = { authorization: `Bearer ${runToken}`, "X-Agent-Session-Id": sessionId };
    const agent = await person(coordinator, headers);
    for (const tool of ["get_agent_session_status", "stop_agent_session", "delete_agent_session"]) {
      expect(await agent.refusal(tool, { session_name: "stranger" })).toContain("An agent may use its own session");
    }
  });
});
