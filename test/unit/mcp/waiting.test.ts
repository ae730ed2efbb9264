import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { RunService } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import { RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { SessionStatus } from "../../../gen/agentrunner/v1/session_pb.ts";
import { SessionService, WatchSessionResponseSchema } from "../../../gen/agentrunner/v1/session_service_pb.ts";
import { servicesOf } from "../../../mcp/services.ts";
import type { Services } from "../../../client/connect.ts";
import { firstOf, runEnd, runStuck, sessionSettled, Waits } from "../../../mcp/waiting.ts";

const never = new AbortController().signal;

function fake(routes: Parameters<typeof createRouterTransport>[0], patienceMs = 2_000): Services {
  const transport = createRouterTransport(routes);
  return servicesOf({ calls: transport, watches: transport }, "rt_token", patienceMs);
}

const idle = { sessionId: "ses_1", status: SessionStatus.IDLE };
const busy = { sessionId: "ses_1", status: SessionStatus.RUNNING, activeRunId: "run_1" };
const gone = () => new ConnectError("restarting", Code.Unavailable);

function ran(state: RunState) {
  const transition = { case: "transition", value: { state } } as const;
  return create(WatchSessionResponseSchema, { update: { case: "event", value: { event: transition } } });
}

function printed() {
  const executor = { case: "executor", value: {} } as const;
  return create(WatchSessionResponseSchema, { update: { case: "event", value: { event: executor } } });
}

describe("firstOf", () => {
  it("answers the first, and ends the others", async () => {
    const ended: string[] = [];
    const hang = (name: string) => (signal: AbortSignal) =>
      new Promise<undefined>((resolve) => {
        signal.addEventListener("abort", () => resolve(void ended.push(name)));
      });
    expect(await firstOf([hang("a"), () => Promise.resolve("first"), hang("b")], never)).toBe("first");
    expect(ended).toEqual(["a", "b"]);
  });

  it("answers nothing when nobody did, or when its time is over", async () => {
    expect(await firstOf([() => Promise.resolve(undefined)], never)).toBeUndefined();
    expect(await firstOf([], never)).toBeUndefined();
    const late = (signal: AbortSignal) =>
      new Promise<string>((_, reject) => {
        signal.addEventListener("abort", () => reject(new ConnectError("canceled", Code.Canceled)));
      });
    expect(await firstOf([late], AbortSignal.timeout(1))).toBeUndefined();
  });

  it("throws what fails before the time is over", async () => {
    await expect(firstOf([() => Promise.reject(new Error("no session"))], never)).rejects.toThrow("no session");
  });
});

describe("Waits", () => {
  it("admits so many at a time, and more when those have returned", async () => {
    const waits = new Waits(3);
    const held = Promise.withResolvers<string>();
    const first = waits.within(2, () => held.promise);
    await expect(waits.within(2, () => Promise.resolve())).rejects.toThrow(
      "2 runs and sessions are waited for already",
    );
    expect(await waits.within(1, () => Promise.resolve("fits"))).toBe("fits");
    held.resolve("done");
    expect(await first).toBe("done");
    await expect(waits.within(3, () => Promise.reject(new Error("failed")))).rejects.toThrow("failed");
    expect(await waits.within(3, () => Promise.resolve("fits"))).toBe("fits");
  });
});

describe("waiting for a run", () => {
  it("goes on after the last cursor when the watch breaks", async () => {
    const cursors: string[] = [];
    const services = fake((router) =>
      router.rpc(RunService.method.watchRun, async function* ({ cursor }) {
        cursors.push(cursor);
        yield { cursor: "c1", update: { case: "run", value: { runId: "run_1", state: RunState.RUNNING } } };
        if (cursor === "") throw gone();
        yield { cursor: "c2", update: { case: "run", value: { runId: "run_1", state: RunState.FAILED } } };
      }),
    );
    expect(await runEnd(services, "run_1")(never)).toMatchObject({ state: RunState.FAILED });
    expect(cursors).toEqual(["", "c1"]);
  });

  it("ends without an answer when its time is over, also while the coordinator is away", async () => {
    const services = fake((router) =>
      // oxlint-disable-next-line require-yield
      router.rpc(RunService.method.watchRun, async function* () {
        throw gone();
      }),
    );
    expect(await runEnd(services, "run_1")(AbortSignal.timeout(30))).toBeUndefined();
    expect(await runStuck(services, "run_1")(AbortSignal.timeout(30))).toBeUndefined();
  });

  it("throws what repeating does not mend", async () => {
    const services = fake((router) =>
      // oxlint-disable-next-line require-yield
      router.rpc(RunService.method.watchRun, async function* () {
        throw new ConnectError("no run", Code.NotFound);
      }),
    );
    await expect(runEnd(services, "run_1")(never)).rejects.toThrow("no run");
  });
});

describe("waiting for a session", () => {
  it("looks again at the end of a run and at a keep-alive, and nowhere else", async () => {
    let looks = 0;
    const services = fake((router) => {
      router.rpc(SessionService.method.getSession, () => ({ session: (looks += 1) < 3 ? busy : idle }));
      router.rpc(SessionService.method.listSessionEvents, () => ({}));
      router.rpc(SessionService.method.watchSession, async function* () {
        for (let i = 0; i < 50; i += 1) yield printed();
        yield ran(RunState.RUNNING);
        yield create(WatchSessionResponseSchema, { update: { case: "keepalive", value: {} } });
        yield ran(RunState.COMPLETED);
        throw new Error("was not to be read");
      });
    });
    expect(await sessionSettled(services, "ses_1", new Waits(1))(never)).toBe("ses_1");
    expect(looks).toBe(3);
  });

  it("begins where the last wait stopped, and from the beginning in another store", async () => {
    const cursors: string[] = [];
    const services = fake((router) => {
      router.rpc(SessionService.method.getSession, () => ({ session: cursors.length < 3 ? busy : idle }));
      router.rpc(SessionService.method.listSessionEvents, ({ runId }) => ({ nextCursor: `first of ${runId}` }));
      router.rpc(SessionService.method.watchSession, async function* ({ cursor }, { signal }) {
        cursors.push(cursor);
        if (cursors.length === 2) throw new ConnectError("the cursor is of another store", Code.OutOfRange);
        yield { cursor: `c${cursors.length}`, update: { case: "keepalive", value: {} } };
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      });
    });
    const waits = new Waits(1);
    expect(await sessionSettled(services, "ses_1", waits)(AbortSignal.timeout(100))).toBeUndefined();
    expect(await sessionSettled(services, "ses_1", waits)(never)).toBe("ses_1");
    expect(cursors).toEqual(["first of run_1", "c1", ""]);
  });

  it("takes one for settled that calls nobody back and is called back by nobody", async () => {
    const settled = (session: object, children: { callbackOwed: boolean }[] = []) => {
      let page = 0;
      const left = new AbortController();
      const services = fake((router) => {
        router.rpc(SessionService.method.getSession, () => ({ session: { sessionId: "ses_1", ...session } }));
        router.rpc(SessionService.method.listSessions, ({ pageToken }) => {
          expect(pageToken).toBe(page === 0 ? "" : "more");
          const sessions = children.slice(page, page + 1);
          page += 1;
          return { sessions, nextPageToken: page < children.length ? "more" : "" };
        });
        router.rpc(SessionService.method.listSessionEvents, () => ({}));
        // oxlint-disable-next-line require-yield
        router.rpc(SessionService.method.watchSession, async function* () {
          left.abort();
        });
      });
      return sessionSettled(services, "ses_1", new Waits(1))(left.signal);
    };
    const { IDLE, FAILED, STOPPED } = SessionStatus;
    for (const status of [IDLE, FAILED, STOPPED]) expect(await settled({ status })).toBe("ses_1");
    for (const state of [1, 2]) expect(await settled({ status: IDLE, notifications: [{ state }] })).toBeUndefined();
    for (const state of [3, 4]) expect(await settled({ status: IDLE, notifications: [{ state }] })).toBe("ses_1");
    const parent = { status: IDLE, childSessionIds: ["ses_2", "ses_3"] };
    expect(await settled(parent, [{ callbackOwed: false }, { callbackOwed: true }])).toBeUndefined();
    expect(await settled(parent, [{ callbackOwed: false }, { callbackOwed: false }])).toBe("ses_1");
    expect(await settled({ ...parent, status: FAILED }, [{ callbackOwed: true }])).toBe("ses_1");
  });
});
