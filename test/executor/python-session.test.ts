import { createServer } from "node:http";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { killStarted } from "./executors-support.ts";
import { FIXTURES, missing, python } from "./python-support.ts";

interface Call {
  path: string | undefined;
  headers: IncomingHttpHeaders;
  body: unknown;
}

/** One answer of the stub: a status and a body; nothing at all when the status is 0, half of it when that is -1. */
type Answer = [status: number, body: unknown];

/** Stands in for a coordinator: keeps every call and gives the next answer. */
let calls: Call[];
let answers: Answer[];
const stub = createServer((request, response) => void reply(request, response));

async function reply(request: IncomingMessage, response: ServerResponse): Promise<void> {
  calls.push({ path: request.url, headers: request.headers, body: await json(request) });
  const [status, answer] = answers.shift() ?? [500, {}];
  if (status === 0) return;
  const text = typeof answer === "string" ? answer : JSON.stringify(answer);
  if (status > 0) response.writeHead(status, { "content-type": "application/json" }).end(text);
  else response.writeHead(200, { "content-length": 100 }).write(text, () => response.destroy());
}

beforeEach(async () => {
  calls = [];
  answers = [];
  await new Promise<void>((resolve) => stub.listen(0, "127.0.0.1", resolve));
});
afterEach(async () => {
  killStarted();
  stub.closeAllConnections();
  await new Promise((resolve) => stub.close(resolve));
});

const url = () => `http://127.0.0.1:${(stub.address() as AddressInfo).port}`;

/** Calls a method of SessionClient in Python and gives what it answers. */
async function call(method: string, fields: object, env: Record<string, string> = {}, ...timeout: string[]) {
  const { code, stdout, stderr } = await python(
    [join(FIXTURES, "call.py"), method, JSON.stringify(fields), ...timeout],
    "",
    { AGENT_ORCHESTRATOR_API_URL: `${url()}/`, AGENT_ORCHESTRATOR_TOKEN: "tok", ...env },
  );
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout);
}

const noPython = missing("python3");

describe.skipIf(noPython)("SessionClient in Python", () => {
  it("asks for a session over Connect's JSON with the token of the run", async () => {
    answers = [[200, { session: { session_id: "ses_1", status: "SESSION_STATUS_IDLE" } }]];
    expect(await call("get_session", { session_name: "née" })).toEqual({
      session_id: "ses_1",
      status: "SESSION_STATUS_IDLE",
    });
    expect(calls).toHaveLength(1);
    expect(calls[0]).toMatchObject({
      path: "/agentrunner.v1.SessionService/GetSession",
      body: { session_name: "née" },
      headers: { authorization: "Bearer tok", "content-type": "application/json", "connect-protocol-version": "1" },
    });
  });

  it("sends no authorization without a token", async () => {
    answers = [[200, {}]];
    expect(await call("get_session", { session_id: "ses_1" }, { AGENT_ORCHESTRATOR_TOKEN: "" })).toEqual({});
    expect(calls[0]?.headers).not.toHaveProperty("authorization");
  });

  it("follows the pages of the events by their cursor", async () => {
    answers = [
      [200, { events: [{ cursor: "a" }, { cursor: "b" }], next_cursor: "b", more: true }],
      [200, { next_cursor: "c", more: true }],
      [200, { events: [{ cursor: "d" }], next_cursor: "d" }],
    ];
    const events = await call("list_session_events", { session_id: "ses_1", run_id: "run_1", page_size: 2 });
    expect(events).toEqual([{ cursor: "a" }, { cursor: "b" }, { cursor: "d" }]);
    const fields = { session_id: "ses_1", run_id: "run_1", page_size: 2 };
    expect(calls.map(({ body }) => body)).toEqual([fields, { ...fields, cursor: "b" }, { ...fields, cursor: "c" }]);
    expect(calls[2]?.path).toBe("/agentrunner.v1.SessionService/ListSessionEvents");
  });

  it("follows the pages of the sessions by their token", async () => {
    answers = [
      [200, { sessions: [{ session_id: "ses_2" }], next_page_token: "t" }],
      [200, { sessions: [{ session_id: "ses_1" }] }],
    ];
    const fields = { statuses: ["SESSION_STATUS_IDLE"], parent_session_id: "ses_0" };
    expect(await call("list_sessions", fields)).toEqual([{ session_id: "ses_2" }, { session_id: "ses_1" }]);
    expect(calls.map(({ body }) => body)).toEqual([fields, { ...fields, page_token: "t" }]);
    expect(calls[1]?.path).toBe("/agentrunner.v1.SessionService/ListSessions");
  });

  it("gives the result of a run", async () => {
    const answer = { run_id: "run_1", state: "RUN_STATE_COMPLETED", result: { text: "ok", data: { n: 1 } } };
    answers = [[200, answer]];
    expect(await call("get_session_result", { session_id: "ses_1", run_id: "run_1" })).toEqual(answer);
    expect(calls[0]).toMatchObject({
      path: "/agentrunner.v1.SessionService/GetSessionResult",
      body: { session_id: "ses_1", run_id: "run_1" },
    });
  });

  const EVENTS = ["list_session_events", { session_id: "s", cursor: "a" }] as const;
  it.each<[what: string, answer: Answer, error: [string, unknown], call: readonly [string, object]]>([
    [
      "a refusal of the coordinator",
      [404, { code: "not_found", message: "no session ses_9" }],
      ["not_found", "no session ses_9"],
      ["get_session", { session_id: "ses_9" }],
    ],
    [
      "a refusal of something between",
      [502, "<html>"],
      ["unavailable", "HTTP 502; the answer is not JSON: b'<html>'"],
      EVENTS,
    ],
    ["a refusal that says nothing", [401, {}], ["unauthenticated", "HTTP 401"], EVENTS],
    ["a status that means nothing here", [418, []], ["unknown", expect.stringContaining("HTTP 418")], EVENTS],
    ["an answer that is not JSON", [200, "hello"], ["internal", "the answer is not JSON: b'hello'"], EVENTS],
    ["an answer that is no object", [200, "[]"], ["internal", "the answer is not a JSON object: b'[]'"], EVENTS],
    ["an answer that breaks off", [-1, "{"], ["unavailable", expect.stringContaining("IncompleteRead")], EVENTS],
    [
      "an answer without end",
      [200, " ".repeat(32 * 2 ** 20 + 1)],
      ["resource_exhausted", "the answer is longer than 33554432 bytes"],
      EVENTS,
    ],
    [
      "pages that do not go on",
      [200, { next_cursor: "a", more: true }],
      ["internal", "the answer says that more follows, but stays at 'a'"],
      EVENTS,
    ],
  ])("raises SessionError for %s", async (_, answer, error, [method, fields]) => {
    answers = [answer];
    expect(await call(method, fields)).toEqual({ error });
  });

  it("raises SessionError when nobody answers in time, or nobody is there", async () => {
    answers = [[0, {}]];
    const late = await call("get_session", { session_id: "s" }, {}, "0.2");
    expect(late.error).toEqual(["deadline_exceeded", expect.stringMatching(/^no answer from .* within 0\.2 s$/)]);
    const gone = await call("get_session", {}, { AGENT_ORCHESTRATOR_API_URL: "http://127.0.0.1:1" });
    expect(gone.error).toEqual(["unavailable", expect.stringContaining("cannot reach http://127.0.0.1:1/agentrunner")]);
  });
});

describe.skipIf(noPython)("executor_config in Python", () => {
  const NAMES = [
    "get_api_url",
    "get_token",
    "get_session_id",
    "get_session_name",
    "get_run_id",
    "get_attempt",
    "get_session_dir",
  ];
  async function read(env: Record<string, string>) {
    const program = `import json, executor_config as c; print(json.dumps([getattr(c, n)() for n in ${JSON.stringify(NAMES)}]))`;
    return JSON.parse((await python(["-c", program], "", env)).stdout);
  }

  it("reads what the runner put into the environment", async () => {
    const env = {
      AGENT_ORCHESTRATOR_API_URL: "http://h:1/",
      AGENT_ORCHESTRATOR_TOKEN: "tok",
      AGENT_SESSION_ID: "ses_1",
      AGENT_SESSION_NAME: "nightly",
      AGENT_RUN_ID: "run_1",
      AGENT_RUN_ATTEMPT: "3",
      AGENT_SESSION_DIR: "/state/sessions/ses_1",
    };
    expect(await read(env)).toEqual(["http://h:1", "tok", "ses_1", "nightly", "run_1", 3, "/state/sessions/ses_1"]);
  });

  it("has defaults for what is missing", async () => {
    expect(await read({})).toEqual(["http://localhost:8765", null, null, null, null, 1, null]);
    expect((await read({ AGENT_SESSION_ID: "ses_1" }))[3]).toBe("ses_1");
  });
});
