import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { until } from "../support/until.ts";
import { AcpPlace, eventsOf, untilSaid } from "./acp-support.ts";
import { isAlive, killStarted } from "./executors-support.ts";

let place: AcpPlace;

beforeEach(() => {
  place = new AcpPlace();
});

afterEach(() => {
  killStarted();
  place.remove();
});

describe("a run of an agent over ACP", () => {
  it("says its session, what the agent does as it happens, its usage, and the result last", async () => {
    const run = await place.run("say I look.;tool read;ask rm;say All;piece is well.;usage 100 20;cost 0.5");
    expect(run).toMatchObject({ code: 0, stderr: "" });
    const events = run.events.slice(1);
    expect(events.map(({ type }) => type)).toEqual([
      ...["session", "message", "tool", "tool", "tool", "tool", "message", "usage", "result"],
    ]);
    expect(eventsOf(events, "tool").slice(0, 2)).toEqual([
      { tool_call_id: "call-1", name: "read", input: { for: "read" } },
      { tool_call_id: "call-1", name: "read", output: "output of read" },
    ]);
    expect(eventsOf(events, "usage")).toEqual([{ input_tokens: 100, output_tokens: 20, cost_usd: 0.5 }]);
    expect(events.at(-1)).toEqual({ type: "result", text: "All is well." });
  });

  it("offers the agent neither files nor a terminal, and tells it of the run's MCP servers with their headers", async () => {
    const server = createServer((_, response) => response.writeHead(405).end()).listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
    const mcp_servers = {
      web: { type: "http", url, headers: { Authorization: "Bearer t" } },
      files: { type: "stdio", command: "/bin/files", args: ["-x"], env: { A: "1" } },
    };
    const agent_blueprint = { name: "b", system_prompt: "", mcp_servers };
    const run = await place.run("say done", { invocation: { agent_blueprint } });
    server.close();
    expect(run.code).toBe(0);
    expect(place.log("initialize")).toMatchObject([
      {
        protocolVersion: 1,
        clientCapabilities: { fs: { readTextFile: false, writeTextFile: false }, terminal: false },
      },
    ]);
    expect(place.log("new")).toMatchObject([
      {
        cwd: place.project,
        mcpServers: [
          { type: "http", name: "web", url, headers: [{ name: "Authorization", value: "Bearer t" }] },
          { name: "files", command: "/bin/files", args: ["-x"], env: [{ name: "A", value: "1" }] },
        ],
      },
    ]);
  });

  it.each([
    ["before the first prompt", {}, undefined, ["Be brief.\n\n", "say done"]],
    ["as that of the session where the agent takes one", { systemPrompt: true }, "Be brief.", ["say done"]],
  ])("gives the system prompt %s", async (_, stub, sent, prompt) => {
    const agent_blueprint = { name: "b", system_prompt: "Be brief.", mcp_servers: {} };
    const run = await place.run("say done", { stub, invocation: { agent_blueprint } });
    const [opened] = place.log("new") as { systemPrompt?: { content: { text: string }[] } }[];
    expect(opened?.systemPrompt?.content[0]?.text).toBe(sent);
    await place.resume(run, "say again", { stub, invocation: { agent_blueprint } });
    const prompts = place.log("prompt") as { text: string }[][];
    expect(prompts.map((blocks) => blocks.map(({ text }) => text))).toEqual([prompt, ["say again"]]);
  });

  it("keeps what the agent needs in a private folder, and starts it in the project", async () => {
    await place.run("say done", { config: { model: "tiny", env: { STUB_HOME: "no" } } });
    expect(place.log("started")).toMatchObject([{ cwd: place.project, home: "no", model: "tiny" }]);
    await place.run("say done");
    expect(place.log("started")).toMatchObject([{}, { home: join(place.session, "home/.").replace(/\/\.$/, "") }]);
    expect(statSync(place.session).mode & 0o777).toBe(0o700);
    expect(statSync(join(place.session, "acp-state.json")).mode & 0o777).toBe(0o600);
  });

  it("passes lines on that are no messages, and cuts what is too long", async () => {
    const run = await place.run("noise Warning: old;noise {broken;big 300;say done");
    expect(run.stderr).toBe("Warning: old\n{broken\n");
    expect(run.events.at(-1)).toEqual({ type: "result", text: "done " });
    expect(run.stdout.length).toBeLessThan(200 * 1024);
    expect(eventsOf(run.events, "tool")[1]?.["output"]).toContain("[cut:");
  });
});

describe("permissions", () => {
  const asks = "ask read_file read;ask rm execute;say done";
  it.each([
    ["allows all without a word of the profile", undefined, ["id-allow_once", "id-allow_once"]],
    ["denies all", { default: "deny" }, ["id-reject_once", "id-reject_once"]],
    ["allows what is listed by kind", { default: "deny", allow: ["read"] }, ["id-allow_once", "id-reject_once"]],
    [
      "allows what is listed by name",
      { default: "deny", allow: ["r*"], deny: ["rm"] },
      ["id-allow_once", "id-reject_once"],
    ],
  ])("%s", async (_, permissions, expected) => {
    const run = await place.run(asks, { config: { ...(permissions && { permissions }) } });
    expect(place.log("outcome")).toEqual(expected.map((optionId) => ({ outcome: "selected", optionId })));
    const denied = expected.filter((id) => id === "id-reject_once").length;
    expect(eventsOf(run.events, "status").filter(({ text }) => String(text).startsWith("not allowed:"))).toHaveLength(
      denied,
    );
    expect(eventsOf(run.events, "tool").filter(({ error }) => error === "failed")).toHaveLength(denied);
  });

  it("cancels a question that offers no fitting answer", async () => {
    await place.run("ask rm execute reject_once;say done");
    expect(place.log("outcome")).toEqual([{ outcome: "cancelled" }]);
  });
});

describe("modes and models", () => {
  it("sets those that the profile names, and not those that are set", async () => {
    const entry = { endpoint: { keys: [], env: [], logins: [], loginHint: "x" } };
    await place.run("say done", { entry, config: { permission_mode: "careful", model: "large" } });
    await place.run("say done", { entry, config: { permission_mode: "plan", model: "small" } });
    expect(place.log("mode")).toEqual(["careful"]);
    expect(place.log("option")).toMatchObject([{ configId: "model", value: "large" }]);
  });

  it.each([
    [
      { permission_mode: "yolo" },
      '"permission_mode" of config must be one that Stub offers (plan, careful), not "yolo"',
    ],
    [{ model: "huge" }, '"model" of config must be one that Stub offers (small, large), not "huge"'],
  ])("refuses one that is not offered: %o", async (config, message) => {
    const entry = { endpoint: { keys: [], env: [], logins: [], loginHint: "x" } };
    const run = await place.run("say done", { entry, config });
    expect(run).toMatchObject({ code: 2, stderr: `acp: BAD_CONFIG: ${message}\n` });
  });

  it("goes on when the agent has lost the mode of the roster", async () => {
    const run = await place.run("say done", { entry: { approval: { args: [], env: {}, mode: "default" } } });
    expect(run.code).toBe(0);
    expect(JSON.stringify(eventsOf(run.events, "status"))).toContain('has no mode \\"default\\" and keeps its own');
  });
});

describe("a resumed conversation", () => {
  it.each([
    ["loaded, its history being dropped", {}, "load"],
    ["loaded by an agent that sends the history late", { lateReplay: true }, "load"],
    ["resumed where the agent offers that alone", { resume: true, load: false }, "resume"],
  ])("is %s", async (_, stub, method) => {
    const first = await place.run("say OLD;tool old;usage 1 1;cost 2", { stub });
    const second = await place.resume(first, "say NEW;usage 3 4;cost 2.5", { stub });
    expect(second.stdout).not.toContain("OLD");
    expect(eventsOf(second.events, "tool")).toEqual([]);
    expect(eventsOf(second.events, "usage")).toEqual([{ input_tokens: 3, output_tokens: 4, cost_usd: 0.5 }]);
    expect(second.events.at(-1)).toEqual({ type: "result", text: "NEW " });
    expect(place.log(method)).toHaveLength(1);
  });

  it("is held where it began, wherever the run is", async () => {
    const first = await place.run("say one");
    const elsewhere = join(place.dir, "elsewhere");
    mkdirSync(elsewhere);
    const second = await place.resume(first, "say two", { cwd: elsewhere });
    expect(second.code).toBe(0);
    expect(place.log("load")).toMatchObject([{ cwd: place.project }]);
    renameSync(place.project, join(place.dir, "gone"));
    const third = await place.resume(first, "say three", { cwd: elsewhere });
    expect(third.code).toBe(75);
    expect(third.stderr).toContain(`acp: PROJECT_DIR_GONE: ${place.project}, where the conversation began`);
  });

  it.each([
    ["by its code", {}],
    ["by its words", { unknown: "No previous sessions found for this project." }],
  ])("of which the agent knows nothing is UNKNOWN_SESSION, %s", async (_, stub) => {
    const invocation = { mode: "resume", executor_session_id: "stub-none" };
    const run = await place.run("say done", { stub, invocation });
    expect(run.code).toBe(1);
    expect(run.stderr).toContain("acp: UNKNOWN_SESSION: Stub does not know the conversation: ");
  });

  it("that had not begun when its run was killed begins now", async () => {
    const stub = { forgets: true };
    const first = place.start("hang", { stub });
    await untilSaid(first, '"session"');
    await until(() => place.log("prompt").length === 1, "the prompt");
    process.kill(-first.pid, "SIGKILL");
    await first.ended;
    // The stub writes its conversation down with the first prompt; what is killed before that is not there.
    writeFileSync(join(place.dir, "stub", "moved"), "");
    const session = JSON.parse(readFileSync(join(place.session, "acp-state.json"), "utf8")) as { conversation: string };
    renameSync(join(place.dir, "stub", `${session.conversation}.json`), join(place.dir, "stub", "moved"));
    const events = [{ type: "session", executor_session_id: session.conversation }];
    const second = await place.resume({ events }, "say done", { stub });
    expect(second.events.at(-1)).toEqual({ type: "result", text: "done " });
    expect(eventsOf(second.events, "session")).toHaveLength(2);
    const third = await place.resume(second, "say x", { stub, invocation: { executor_session_id: "stub-other" } });
    expect(third.stderr).toContain("UNKNOWN_SESSION");
  });

  it("cannot be had from an agent that offers neither way", async () => {
    const first = await place.run("say one");
    const second = await place.resume(first, "say two", { stub: { load: false } });
    expect(second.stderr).toContain("acp: AGENT_VERSION: Stub cannot resume a conversation");
  });
});

describe("a run fails", () => {
  it.each([
    ["no answer", "tool", "", 1, "NO_ANSWER: Stub ended its turn, and no model has answered"],
    ["no tokens used", "zero", "", 1, "NO_ANSWER: Stub ended its turn, and no model has answered"],
    [
      "an error told as a message",
      "piece Info: retrying...;piece Error: Authentication failed (HTTP 401).",
      "",
      75,
      "NOT_LOGGED_IN: Stub: Error: Authentication failed (HTTP 401).",
    ],
    ["another one", "say stream error: 429 Too Many Requests", "", 75, "RATE_LIMITED: Stub: stream error: 429"],
    ["an error of the provider", "error 401 bad key", "", 75, "NOT_LOGGED_IN: Stub: bad key"],
    [
      "an overloaded provider",
      "error -32603 Internal error",
      "overloaded",
      75,
      "MODEL_UNREACHABLE: Stub: Internal error: overloaded",
    ],
    ["another error", "error -32603 it burns", "", 1, "AGENT_FAILED: Stub: it burns"],
    [
      "too many tokens",
      "say half;stop max_tokens",
      "",
      1,
      "LIMIT_REACHED: Stub is not done: its model may write no more tokens; it said: half",
    ],
    ["too many turns", "stop max_turn_requests", "", 1, "LIMIT_REACHED"],
    ["a refusal", "stop refusal", "", 1, "MODEL_REFUSED: Stub: the model refuses"],
    [
      "a stop reason of tomorrow",
      "stop bored",
      "",
      1,
      'AGENT_FAILED: Stub ended its turn with the stop reason "bored"',
    ],
    ["a cancel of its own", "stop cancelled", "", 1, "AGENT_FAILED: Stub cancelled its turn"],
    [
      "its end",
      "exit 3",
      "",
      1,
      "AGENT_FAILED: Stub ended before it answered (prompt): exit code 3, the end of its stderr: stub: it broke",
    ],
    [
      "an answer without end",
      "answer 9000",
      "",
      1,
      "AGENT_FAILED: the agent sent a message of more than 8388608 bytes",
    ],
  ])("by %s", async (_, prompt, details, code, message) => {
    const run = await place.run(prompt === "tool" ? "thought hm" : prompt, {
      stub: details ? { errorData: { details } } : {},
    });
    expect(run.stderr).toContain(`acp: ${message}`);
    expect(run.code).toBe(code);
    expect(eventsOf(run.events, "result")).toEqual([]);
    expect(String(eventsOf(run.events, "status").at(-1)?.["text"])).toContain(message);
  });

  it.each([
    [
      "another version of the protocol",
      { stub: { version: 2 } },
      75,
      "AGENT_VERSION: Stub speaks version 2 of the Agent Client Protocol, not 1",
    ],
    [
      "an old program",
      {
        entry: {
          install: { registry: "npm", package: "stub", version: "2.0.0", atLeast: "2.0.0", sizeMb: 1, memoryMb: 1 },
        },
      },
      75,
      "AGENT_VERSION: Stub 1.0.0 is too old: at least 2.0.0",
    ],
    ["a login that the agent misses", { stub: { refuse: true } }, 75, "NOT_LOGGED_IN: Stub: Authentication required"],
    ["no key", { env: { STUB_KEY: "" } }, 75, "NOT_LOGGED_IN: Stub has no key and no login (none of STUB_KEY)"],
    ["no program", { config: { program: undefined } }, 75, "AGENT_NOT_INSTALLED: Stub is not installed"],
    [
      "an agent that is not in the roster",
      { config: { agent: "nobody" } },
      2,
      'BAD_CONFIG: agent must be one of the roster, not "nobody"',
    ],
    [
      "an agent without the protocol",
      { entry: { start: { args: [], prompt: "stdin", env: {} } } },
      2,
      "BAD_CONFIG: Stub does not speak the Agent Client Protocol; use the executor acp",
    ],
    ["a key that is not known", { config: { modle: "x" } }, 2, 'BAD_CONFIG: "modle" of config is not known'],
    [
      "directories that the agent cannot take",
      { config: { add_dirs: ["/tmp"] } },
      2,
      'BAD_CONFIG: "add_dirs" of config cannot be used',
    ],
  ] as const)("by %s", async (_, options, code, message) => {
    const run = await place.run("say done", options);
    expect(run.stderr).toContain(`acp: ${message}`);
    expect(run.code).toBe(code);
  });

  it("by a server that does not answer, before the agent is started", async () => {
    const mcp_servers = { web: { type: "http", url: "http://127.0.0.1:1/mcp", headers: {} } };
    const run = await place.run("say done", {
      invocation: { agent_blueprint: { name: "b", system_prompt: "", mcp_servers } },
    });
    expect(run.code).toBe(75);
    expect(run.stderr).toContain("acp: MCP_SERVER_FAILED: MCP servers of the run do not answer: web (");
    expect(run.events.map(({ type }) => type)).toEqual(["status"]);
  });

  it("by a server of the blueprint that the agent has no transport for; without ours it works", async () => {
    const server = createServer((_, response) => response.writeHead(405).end()).listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
    const options = { stub: { http: false }, env: { AGENT_ORCHESTRATOR_MCP_URL: `${url}/ours` } };
    const agent_blueprint = { name: "b", system_prompt: "", mcp_servers: { web: { type: "http", url, headers: {} } } };
    const refused = await place.run("say done", { ...options, invocation: { agent_blueprint } });
    const goes = await place.run("say done", options);
    server.close();
    expect(refused.stderr).toContain(
      "acp: MCP_SERVER_FAILED: MCP servers of the run cannot be used, web: Stub has no MCP over HTTP",
    );
    expect(goes.code).toBe(0);
    expect(JSON.stringify(goes.events)).toContain("it can start no sessions");
  });
});

describe("a stop", () => {
  it.each([
    ["cancels the turn", {}],
    ["does not wait for an agent that heeds nothing", { mute: true, deaf: true }],
  ])("%s", async (_, stub) => {
    const run = place.start("say working;tool x open;hang", { stub });
    await untilSaid(run, '"call-1"');
    const [{ pid } = { pid: 0 }] = place.log("started") as { pid: number }[];
    // As a runner does: the whole group.
    process.kill(-run.pid, "SIGTERM");
    const { code, stderr, stdout } = await run.ended;
    expect(code).toBe(1);
    expect(stderr).toContain("acp: AGENT_FAILED: stopped before its end");
    expect(stdout).not.toContain('"result"');
    await until(() => !isAlive(pid), "the end of the agent");
    if ("mute" in stub) expect(place.log("cancel")).toEqual([true]);
  });
});
