import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import type { Server } from "node:http";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { RosterEntry } from "../../executors/lib/roster/roster-entry.ts";
import { agentLines } from "../support/agent-lines.ts";
import { until } from "../support/until.ts";
import { killStarted } from "./executors-support.ts";
import type { Outcome, Wish } from "./stub-cli.ts";
import { AGENT_CLI, ENTRIES, StubCli, answering, blueprint, entryOf, serversWithSecrets } from "./stub-cli.ts";

let cli: StubCli;
let server: Server;
let mcpUrl: string;

beforeEach(async () => {
  cli = new StubCli();
  ({ server, url: mcpUrl } = await answering());
  mcpUrl += "/mcp/capability-secret";
});

afterEach(() => {
  killStarted();
  cli.remove();
  server.close();
  server.closeAllConnections();
});

const run = (agent: string, wish: Wish = {}): Promise<Outcome> => cli.runAgent(agent, wish);

describe("every agent of the roster", () => {
  it.each(ENTRIES.filter(({ mcp }) => mcp.transport !== "config-flags").map((entry) => [entry.name, entry] as const))(
    "%s: its arguments, its prompt, its private home, and no secret in argv",
    async (name, entry) => {
      cli.says(agentLines(entry.output.format));
      const change = blueprint({ mcp_servers: serversWithSecrets(mcpUrl) });
      const outcome = await run(name, { change, env: { AGENT_ORCHESTRATOR_MCP_URL: mcpUrl }, prompt: "do\nit: ünï" });
      expect(outcome.stderr.replaceAll("hi-from-bash\n", "")).toBe("");
      expect(outcome.code).toBe(0);
      expect(outcome.of("result")[0]?.["text"]).toMatch(/DONE|NO-MCP-TOOL/);

      expect(cli.argv.slice(0, entry.start.args.length)).toEqual(entry.start.args);
      expect(cli.argv.join("\n")).not.toMatch(/secret/);
      expect(entry.start.prompt === "argument" ? cli.argv.at(-1) : cli.stdin).toBe("do\nit: ünï");
      for (const [variable, place] of Object.entries(entry.home.variables)) {
        expect(cli.env[variable]).toBe(join(cli.session, "home", place));
      }
      expect(existsSync(join(cli.home, ".config"))).toBe(false);

      const ids = outcome.of("session").map((event) => event["executor_session_id"]);
      if (entry.session.id === "ours") expect(cli.argv).toContain(ids[0]);
      else expect(ids).toHaveLength(1);
      expect(handedOver(entry)).toEqual(
        entry.mcp.transport === "none" ? undefined : expect.stringMatching(/capability-secret[^]*header-secret/),
      );
    },
  );

  /** The document with the run's servers, as the agent finds it. */
  function handedOver({ mcp }: RosterEntry): string | undefined {
    if (mcp.transport === "env-json") return cli.env[mcp.variable ?? ""];
    if (mcp.transport === "none") return undefined;
    const prefixed = cli.argv[cli.argv.indexOf(mcp.flag ?? "no flag") + 1] ?? "";
    const file = mcp.transport === "home-file" ? join(cli.session, "home", mcp.file ?? "") : prefixed.replace(/^@/, "");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    return readFileSync(file, "utf8");
  }

  it.each<[string, string[]]>([
    [
      "pi",
      ["-p", "--mode", "json", "--model", "m", "--approve", "--append-system-prompt", "Be kind.", "--session-id", "ID"],
    ],
    ["kimi", ["--output-format", "stream-json", "--model", "m", "-p", "Be kind.\n\ndo it"]],
    ["opencode", ["run", "--format", "json", "--model", "m"]],
    ["vibe", ["-p", "--output", "streaming", "--trust", "--auto-approve"]],
    [
      "gemini",
      [
        "--output-format",
        "stream-json",
        "--skip-trust",
        "--model",
        "m",
        "--approval-mode",
        "yolo",
        "--session-id",
        "ID",
      ],
    ],
    [
      "qwen",
      [
        ...["--output-format", "stream-json", "--model", "m", "--approval-mode", "yolo"],
        ...["--append-system-prompt", "Be kind.", "--session-id", "ID"],
      ],
    ],
  ])("%s: the whole command", async (name, argv) => {
    cli.says(agentLines(entryOf(name).output.format));
    const { endpoint } = entryOf(name);
    const config = endpoint.modelFlag === undefined && endpoint.model === undefined ? {} : { model: "m" };
    const outcome = await run(name, { config, change: blueprint({ system_prompt: "Be kind." }) });
    const id = outcome.of("session")[0]?.["executor_session_id"];
    expect(cli.argv).toEqual(argv.map((arg) => (arg === "ID" ? id : arg)));
    const { by } = entryOf(name).instructions;
    if (entryOf(name).start.prompt === "stdin") expect(cli.stdin).toBe(by === "flag" ? "do it" : "Be kind.\n\ndo it");
  });
});

describe("the outcome", () => {
  it("is a failure when the agent exits 0 and no model has answered", async () => {
    cli.says([{ type: "session", id: "s" }, { type: "agent_settled" }]);
    const { code, stderr } = await run("pi");
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("NO_ANSWER: pi exited with code 0"),
    });
  });

  it("is a failure when the last message is one, whatever the exit code is", async () => {
    const message = { role: "assistant", content: [], stopReason: "error", errorMessage: "429 slow down" };
    cli.says([{ type: "message_end", message }, { type: "agent_settled" }]);
    const { code, stderr, of } = await run("pi");
    expect({ code, stderr }).toMatchObject({
      code: 75,
      stderr: expect.stringContaining("RATE_LIMITED: 429 slow down"),
    });
    expect(of("result")).toEqual([]);
  });

  it("is a failure when the agent says that all is well and exits 1", async () => {
    cli.says(agentLines("pi"), "echo 'oh no' >&2; exit 1");
    const { code, stderr } = await run("pi");
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("AGENT_FAILED: pi exited with code 1"),
    });
    expect(stderr).toContain("oh no");
  });

  it("has the reason that the agent gave on stderr before any answer", async () => {
    cli.says([], "echo 'Error: Invalid API key (from env var K)' >&2; exit 1");
    const { code, stderr } = await run("vibe");
    expect({ code, stderr }).toMatchObject({
      code: 75,
      stderr: expect.stringContaining("agent-cli: NOT_LOGGED_IN: Mistral Vibe exited with code 1"),
    });
  });

  it("does not wait for an agent that has said its last word", async () => {
    cli.says(agentLines("pi"), "exec sleep 1000");
    const { code, of } = await run("pi");
    expect(code).toBe(0);
    expect(of("result")[0]?.["text"]).toBe("PI DONE");
    expect(of("status").at(-1)?.["text"]).toContain("does not end");
  });

  it("does not wait for what the agent left behind with its output open", async () => {
    cli.says(agentLines("pi"), "sleep 1000 & exit 0");
    const { code, of } = await run("pi");
    expect(code).toBe(0);
    expect(of("result")[0]?.["text"]).toBe("PI DONE");
  });

  it("is no result when the run was stopped", async () => {
    cli.says(agentLines("pi"), `trap 'exit 0' TERM; touch ${cli.dir}/ready; while :; do sleep 0.05; done`);
    const executor_config = { agent: "pi", program: cli.program };
    const started = cli.start(AGENT_CLI, { executor_config }, { OPENAI_API_KEY: "k" });
    await until(() => existsSync(join(cli.dir, "ready")), "the agent runs");
    process.kill(-started.pid, "SIGTERM");
    const { code, stderr, stdout } = await started.ended;
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringContaining("stopped before its end") });
    expect(stdout).not.toContain('"result"');
  });

  it("has the sum of the usage of all steps, and says it as they end", async () => {
    cli.says(agentLines("pi"));
    const { of } = await run("pi");
    expect(of("usage")).toEqual([
      { type: "usage", input_tokens: 111, output_tokens: 22, cost_usd: 0.000122 },
      { type: "usage", input_tokens: 222, output_tokens: 44, cost_usd: 0.000244 },
    ]);
  });

  it("has data where a schema asks for them", async () => {
    const result = { type: "result", subtype: "success", is_error: false, session_id: "s", result: "done" };
    const answer = {
      type: "assistant",
      session_id: "s",
      message: { model: "m", content: [{ type: "text", text: "done" }] },
    };
    cli.says([answer, { ...result, structured_result: { a: 1 } }]);
    const well = await run("qwen", { config: { output_schema: { type: "object" } } });
    expect(well.of("result")).toEqual([{ type: "result", text: "done", data: { a: 1 } }]);
    expect(cli.argv[cli.argv.indexOf("--json-schema") + 1]).toBe('{"type":"object"}');
    cli.says([answer, result]);
    const bad = await run("qwen", { config: { output_schema: { type: "object" } } });
    expect(bad.stderr).toContain("OUTPUT_SCHEMA: Qwen Code was asked for a JSON object");
  });
});

describe("what is wrong has its name", () => {
  it.each<[string, string, Wish, number, string]>([
    ["no agent", "pi", { config: { agent: undefined } }, 2, 'BAD_CONFIG: config has no "agent"'],
    [
      "an unknown agent",
      "pi",
      { config: { agent: "pie" } },
      2,
      'BAD_CONFIG: agent must be one of the roster, not "pie"',
    ],
    ["an unknown key", "pi", { config: { nope: 1 } }, 2, 'BAD_CONFIG: "nope" of config is not known'],
    [
      "a limit that it does not have",
      "pi",
      { config: { max_turns: 3 } },
      2,
      '"max_turns" of config: pi has nothing like it',
    ],
    [
      "a schema that it cannot keep",
      "gemini",
      { config: { output_schema: {} } },
      2,
      '"output_schema" of config: Gemini CLI has nothing',
    ],
    ["a program that is not there", "pi", { config: { program: "/nope" } }, 75, "AGENT_NOT_INSTALLED: program /nope"],
    ["no key", "pi", { env: { ANTHROPIC_API_KEY: "" } }, 75, "NOT_LOGGED_IN: pi has no key and no login"],
    [
      "servers for an agent without a client",
      "pi",
      { change: blueprint({ mcp_servers: { db: { type: "http", url: "http://127.0.0.1:1/" } } }) },
      2,
      "BAD_CONFIG: pi has no MCP client, and the blueprint has MCP servers (db)",
    ],
    [
      "a server that is down",
      "qwen",
      { change: blueprint({ mcp_servers: { db: { type: "http", url: "http://127.0.0.1:1/" } } }) },
      75,
      "MCP_SERVER_FAILED: MCP servers of the run do not answer: db",
    ],
    ["an agent with an executor of its own", "codex", {}, 2, "BAD_CONFIG: agent codex is not for agent-cli"],
  ])("%s", async (_, agent, wish, exitCode, message) => {
    const { code, stderr } = await run(agent, wish);
    expect(stderr).toContain(message);
    expect(code).toBe(exitCode);
  });

  it("a server that only the agent finds to be down", async () => {
    const data = { servers: [{ name: "db", status: "failed" }] };
    cli.says([{ type: "session.mcp_servers_loaded", ephemeral: true, data }], "exec sleep 1000");
    const change = blueprint({ mcp_servers: { db: { type: "stdio", command: "no-such-server" } } });
    const { code, stderr } = await run("copilot", { change });
    expect({ code, stderr }).toMatchObject({
      code: 75,
      stderr: expect.stringContaining("MCP_SERVER_FAILED: MCP servers of the run do not answer: db (failed)"),
    });
  });

  it("keeps other texts of the agent's file when it writes the servers into it", async () => {
    cli.says(agentLines("vibe"));
    const change = blueprint({ mcp_servers: serversWithSecrets(mcpUrl) });
    mkdirSync(join(cli.session, "home"), { recursive: true });
    await run("vibe", { change, env: { MISTRAL_BASE_URL: "http://127.0.0.1:9/v1" } });
    await run("vibe", { change, env: {} });
    const text = readFileSync(join(cli.session, "home", "config.toml"), "utf8");
    expect(text).toContain("[[providers]]");
    expect(text.match(/\[\[mcp_servers\]\]/g)).toHaveLength(1);
  });
});
