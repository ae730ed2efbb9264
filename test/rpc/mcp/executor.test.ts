import { chmodSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { ExecutorEvent } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { FailureReason } from "../../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind, RunOfferSchema } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import type { RunOffer } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { createLogger } from "../../../lib/log.ts";
import { executorOf } from "../../../runner/execution/execute.ts";
import { startMcp } from "../../../runner/execution/mcp-server.ts";
import type { ToolServer } from "../../../runner/execution/mcp-server.ts";
import type { ExecutorSettings } from "../../../runner/settings/settings.ts";
import { atEnd, cleanUp, tempDir, testSettings } from "../../support/test-runner.ts";
import { until } from "../../support/until.ts";

const log = createLogger({ name: "test", level: "silent", format: "json" });

afterEach(cleanUp);

async function doorTo(coordinatorUrl: string): Promise<ToolServer> {
  const door = await startMcp({ port: 0, coordinatorUrl, tlsCaPem: undefined, log });
  atEnd(() => door.close());
  return door;
}

describe("an executor", () => {
  /** Runs a shell script as the executor of an offer, and returns its output. */
  async function execute(
    door: ToolServer,
    script: string,
    offer: RunOffer,
    {
      onEvent,
      stateDir,
      ...more
    }: Partial<ExecutorSettings> & { onEvent?: (event: ExecutorEvent) => void; stateDir?: string } = {},
  ) {
    const command = join(tempDir(), "ao-script-exec");
    writeFileSync(command, `#!/bin/sh\n${script}\n`);
    chmodSync(command, 0o755);
    const settings = testSettings("http://127.0.0.1:1");
    const leash = { add: () => undefined, remove: () => undefined };
    const execute = executorOf(
      {
        ...settings,
        stateDir: stateDir ?? settings.stateDir,
        executor: { ...settings.executor, command, passEnv: ["HOME"], ...more },
      },
      { leash, mcp: door, log },
    );
    const assignment = {
      offer,
      storeId: "store_1",
      projectDir: settings.projectDir,
      bootId: "boot_1",
      stopGraceMs: 100,
    };
    return execute(assignment, { onStarted: () => undefined, onEvent: onEvent ?? (() => undefined) }).done;
  }

  it("is told the URL of its run in its environment and wherever its blueprint asks for it, until it has ended", async () => {
    const door = await doorTo("http://127.0.0.1:1");
    const offer = create(RunOfferSchema, {
      runId: "run_1",
      leaseId: "lease_1",
      attempt: 1,
      runToken: "rt_secret",
      invocation: {
        schemaVersion: "2.0",
        mode: "start",
        sessionId: "ses_1",
        prompt: "go",
        parameters: { city: "Rome" },
        agentBlueprint: {
          name: "worker",
          systemPrompt: "Session ${AGENT_SESSION_ID} in ${params.city}; ${UNKNOWN} stays.",
          mcpServers: {
            orchestrator: {
              type: "http",
              url: "${AGENT_ORCHESTRATOR_MCP_URL}",
              headers: { "X-Agent-Session-Id": "${AGENT_SESSION_ID}", "X-Home": "${env.HOME}${env.PATH}" },
            },
          },
        },
      },
    });
    const out = join(tempDir(), "status");
    const told = join(tempDir(), "told");
    const script = `printf '{"env":"%s","stdin":%s}' "$AGENT_ORCHESTRATOR_MCP_URL" "$(cat)" > ${told}
exec ${process.execPath} -e 'fetch(process.env.AGENT_ORCHESTRATOR_MCP_URL).then((r) => fs.writeFileSync("${out}", String(r.status)))'`;
    const { kind } = await execute(door, script, offer);
    expect(kind).toBe(Report_Kind.COMPLETED);
    const { env, stdin } = JSON.parse(readFileSync(told, "utf8"));
    expect(env).toMatch(/\/mcp\/[0-9a-f]{64}$/);
    expect(stdin.agent_blueprint).toEqual({
      name: "worker",
      system_prompt: "Session ses_1 in Rome; ${UNKNOWN} stays.",
      mcp_servers: {
        orchestrator: {
          type: "http",
          url: env,
          headers: { "X-Agent-Session-Id": "ses_1", "X-Home": `${process.env["HOME"]}\${env.PATH}` },
        },
      },
    });
    // GET is no way to call a tool, but who is asked knows the URL.
    expect(readFileSync(out, "utf8")).toBe("405");
    const gone = await until(() => fetch(env).catch(() => undefined), "an answer on a new connection");
    expect(gone.status).toBe(404);
  });

  it("that prints what only it may know is masked, in events, result and failure message", async () => {
    vi.stubEnv("MY_API_KEY", "sk-0123456789");
    atEnd(() => vi.unstubAllEnvs());
    const door = await doorTo("http://127.0.0.1:1");
    const runToken = `rt_${"5e".repeat(32)}`;
    const offer = create(RunOfferSchema, { runId: "run_1", runToken, invocation: { sessionId: "ses_1" } });
    const told = join(tempDir(), "told");
    const script = `printf %s "$AGENT_ORCHESTRATOR_MCP_URL" > ${told}
printf '{"type":"result","text":"%s"}\\n' "$AGENT_ORCHESTRATOR_TOKEN"
printf %s "$AGENT_ORCHESTRATOR_TOKEN" | head -c 20; sleep 0.2; printf %s "$AGENT_ORCHESTRATOR_TOKEN" | tail -c +21
env; env >&2; exit 3`;
    const events: ExecutorEvent[] = [];
    const onEvent = (event: ExecutorEvent) => void events.push(event);
    const masks = { passEnv: ["MY_API_KEY"], maskEnv: ["*_KEY"] };
    const outcome = await execute(door, script, offer, { ...masks, onEvent });
    const url = readFileSync(told, "utf8");
    const seen = JSON.stringify([events, outcome], (_, one: unknown) => (typeof one === "bigint" ? String(one) : one));
    for (const secret of [runToken, url, url.slice(-64), "sk-0123456789"]) expect(seen).not.toContain(secret);
    expect(outcome.result?.text).toBe("***");
    expect(outcome.message).toContain("AGENT_ORCHESTRATOR_TOKEN=***\n");
    expect(outcome.message).toContain("MY_API_KEY=***\n");
    expect(outcome.message).toMatch(/AGENT_ORCHESTRATOR_MCP_URL=http:\/\/127\.0\.0\.1:\d+\/mcp\/\*\*\*\n/);
  });

  it("finds the folder of its session, which only its user may look into, and keeps what is in it", async () => {
    const door = await doorTo("http://127.0.0.1:1");
    const stateDir = tempDir();
    const offer = create(RunOfferSchema, { runId: "run_1", invocation: { sessionId: "ses_1" } });
    const write = await execute(door, 'echo kept > "$AGENT_SESSION_DIR/mine"', offer, { stateDir });
    expect(write).toMatchObject({ kind: Report_Kind.COMPLETED });
    const { result } = await execute(door, 'cat "$AGENT_SESSION_DIR/mine"; pwd; echo $AGENT_SESSION_DIR', offer, {
      stateDir,
    });
    expect(result?.text).toMatch(/^kept\n/);
    expect(result?.text).toContain(join(stateDir, "sessions/ses_1"));
    expect(statSync(join(stateDir, "sessions/ses_1")).mode & 0o777).toBe(0o700);
  });

  it("is not started when there can be no folder for its session", async () => {
    const door = await doorTo("http://127.0.0.1:1");
    const stateDir = tempDir();
    writeFileSync(join(stateDir, "sessions"), "");
    const offer = create(RunOfferSchema, { runId: "run_1", invocation: { sessionId: "ses_1" } });
    const { kind, failure, message } = await execute(door, "true", offer, { stateDir });
    expect({ kind, failure }).toEqual({ kind: Report_Kind.FAILED, failure: FailureReason.SPAWN });
    expect(message).toBe(
      `the folder of the session, ${stateDir}/sessions/ses_1, cannot be used: ${stateDir}/sessions is not a directory; remove it`,
    );
  });

  it("that is silent for longer than its kind may be ends, and hears which limit that was", async () => {
    const door = await doorTo("http://127.0.0.1:1");
    const of = { type: "executor", file: "/x/executor.json" } as const;
    const offer = create(RunOfferSchema, { runId: "run_1", invocation: { sessionId: "ses_1" } });
    const ends = async (idleTimeout: ExecutorSettings["idleTimeout"], more = offer) => {
      const { failure, message } = await execute(door, "exec sleep 60", more, { idleTimeout });
      expect(failure).toBe(FailureReason.IDLE);
      return message;
    };
    expect(await ends({ ms: 50, of })).toMatch(
      /^executor printed nothing for 50 ms, the idle timeout of the executor \(to change it, give the run an --idle-timeout, or set idle_timeout in an executor profile\); /,
    );
    const profile = { type: "profile", file: "/p/slow.json" } as const;
    expect(await ends({ ms: 50, of: profile })).toContain(
      "the idle timeout of the profile (to change it, give the run an --idle-timeout, or set idle_timeout in /p/slow.json)",
    );
    const own = create(RunOfferSchema, { ...offer, idleTimeout: durationFromMs(60) });
    expect(await ends({ ms: 600_000, of }, own)).toContain(
      "printed nothing for 60 ms, the idle timeout of the run (--idle-timeout changes it)",
    );
    const none = await execute(door, "sleep 0.3", offer, { idleTimeout: { ms: 0, of } });
    expect(none.kind).toBe(Report_Kind.COMPLETED);
  });

  it("is not blamed for what the runner could not put together", async () => {
    const broken: ToolServer = {
      open: () => {
        throw new Error("broken for the test");
      },
      close: () => Promise.resolve(),
    };
    const { kind, message } = await execute(broken, "true", create(RunOfferSchema, { runId: "run_1" }));
    expect(kind).toBe(Report_Kind.FAILED);
    expect(message).toBe("the runner could not put together what the executor is told of the run: broken for the test");
  });

  it("that cannot be spawned leaves no URL behind", async () => {
    const door = await doorTo("http://127.0.0.1:1");
    let url = "";
    const spied: ToolServer = {
      open: (run) => {
        const capability = door.open(run);
        ({ url } = capability);
        return capability;
      },
      close: () => door.close(),
    };
    const settings = testSettings("http://127.0.0.1:1");
    const executor = { ...settings.executor, command: "/nowhere/ao-x-exec" };
    const leash = { add: () => undefined, remove: () => undefined };
    const execute = executorOf({ ...settings, executor }, { leash, mcp: spied, log });
    const assignment = {
      offer: create(RunOfferSchema, { runId: "run_1" }),
      storeId: "store_1",
      projectDir: "/",
      bootId: "b",
      stopGraceMs: 1,
    };
    await execute(assignment, { onStarted: () => undefined, onEvent: () => undefined }).done;
    expect((await fetch(url)).status).toBe(404);
  });
});
