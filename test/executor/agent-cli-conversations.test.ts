import { rmSync } from "node:fs";
import type { Server } from "node:http";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { agentLines } from "../support/agent-lines.ts";
import { killStarted } from "./executors-support.ts";
import type { Outcome, Wish } from "./stub-cli.ts";
import { AGENT_CLI, StubCli, answering, blueprint, entryOf } from "./stub-cli.ts";

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

describe("conversations", () => {
  const resume = (id: unknown) => ({ mode: "resume", executor_session_id: id });

  async function first(agent: string): Promise<unknown> {
    cli.says(agentLines(entryOf(agent).output.format));
    const outcome = await run(agent);
    expect(outcome.code).toBe(0);
    return outcome.of("session").at(-1)?.["executor_session_id"];
  }

  it.each(["pi", "qwen", "copilot", "gemini", "vibe", "kimi", "opencode", "claude"])(
    "%s: is resumed by its flag",
    async (agent) => {
      const id = await first(agent);
      const outcome = await run(agent, { change: resume(id) });
      expect(outcome.code).toBe(0);
      expect(cli.argv[cli.argv.indexOf(entryOf(agent).session.resumeFlag ?? "") + 1]).toBe(id);
    },
  );

  it("is resumed where it began, when the agent finds it only there", async () => {
    const id = await first("pi");
    const began = cli.project;
    const other = new StubCli();
    try {
      const change = {
        ...resume(id),
        executor_config: { agent: "pi", program: cli.program },
        project_dir: other.project,
      };
      const started = other.start(AGENT_CLI, change, { OPENAI_API_KEY: "k", AGENT_SESSION_DIR: cli.session });
      expect(await started.ended).toMatchObject({ code: 0 });
      expect(cli.cwd).toBe(began);
      rmSync(began, { recursive: true });
      const gone = await other.run(AGENT_CLI, change, { OPENAI_API_KEY: "k", AGENT_SESSION_DIR: cli.session });
      expect(gone).toMatchObject({
        code: 75,
        stderr: expect.stringContaining(`PROJECT_DIR_GONE: the conversation began in ${began}`),
      });
    } finally {
      other.remove();
    }
  });

  it.each([
    ["begins under its id when nothing of it was written before", "true", "--session-id"],
    [
      "goes on when the agent was killed after it had written something",
      'touch "$PI_CODING_AGENT_DIR/session_${@: -1}.jsonl"',
      "--session",
    ],
  ])("%s", async (_, before, flag) => {
    cli.says([], `${before}; kill -9 $$`);
    const dead = await run("pi");
    const id = dead.of("session")[0]?.["executor_session_id"];
    expect(dead.code).toBe(1);
    cli.says(agentLines("pi"));
    const outcome = await run("pi", { change: resume(id) });
    expect(outcome.code).toBe(0);
    expect(cli.argv.slice(-2)).toEqual([flag, id]);
    expect(outcome.of("session")[0]?.["executor_session_id"]).toBe(id);
  });

  it("that the agent would begin anew without a word is not resumed", async () => {
    const { code, stderr } = await run("copilot", { change: resume("9d1c") });
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("UNKNOWN_SESSION: Copilot CLI has no conversation 9d1c"),
    });
  });

  it("that the agent does not know is named so", async () => {
    cli.says([], "echo 'Error: Session 9d1c not found' >&2; exit 1");
    const { code, stderr } = await run("vibe", { change: resume("9d1c") });
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("agent-cli: UNKNOWN_SESSION: "),
    });
  });

  it("usage that is of the whole conversation is that of the run, after what earlier runs used", async () => {
    const id = await first("qwen");
    cli.says(agentLines("qwen").map((line) => line.replaceAll('"input_tokens":222', '"input_tokens":300')));
    const { of } = await run("qwen", { change: resume(id) });
    expect(of("usage").at(-1)).toMatchObject({ input_tokens: 78, output_tokens: 0 });
  });
});

describe("prompts", () => {
  it("that begin with a dash are no flag", async () => {
    cli.says(agentLines("kimi"));
    await run("kimi", { prompt: "--help" });
    expect(cli.argv.at(-1)).toBe("\n--help");
    cli.says(agentLines("pi"));
    await run("pi", { prompt: "-x", change: blueprint({ system_prompt: "-y" }) });
    expect(cli.stdin).toBe("-x");
    expect(cli.argv).toContain("\n-y");
  });

  it("of 1 MB are handed over on stdin, and refused where there is only an argument", async () => {
    const prompt = "x".repeat(1024 * 1024);
    cli.says(agentLines("pi"));
    expect((await run("pi", { prompt })).code).toBe(0);
    expect(cli.stdin).toBe(prompt);
    const { code, stderr } = await run("kimi", { prompt });
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(
        "LIMIT_REACHED: the prompt has 1048576 bytes with its system prompt, and Kimi Code takes at most 131071",
      ),
    });
  });

  it("a system prompt with the address of the orchestrator is not shown to everybody", async () => {
    cli.says(agentLines("pi"));
    const change = blueprint({ system_prompt: `Ask ${mcpUrl}.` });
    const { of } = await run("pi", { change, env: { AGENT_ORCHESTRATOR_MCP_URL: mcpUrl } });
    expect(cli.argv.join("\n")).not.toContain("secret");
    expect(cli.stdin).toBe(`Ask ${mcpUrl}.\n\ndo it`);
    expect(of("status")[0]?.["text"]).toBe("pi has no MCP client: it cannot start sessions");
  });
});
