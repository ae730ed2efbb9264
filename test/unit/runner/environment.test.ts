import { describe, expect, it } from "vitest";
import { executorEnv, runMarkers } from "../../../runner/execution/environment.ts";

const run = {
  sessionId: "ses_1",
  sessionName: "name",
  runId: "run_1",
  attempt: 2,
  apiUrl: "http://localhost:8765",
  runToken: "run-token",
  mcpUrl: "http://127.0.0.1:1/mcp/0",
  bootId: "boot",
};
const facts = {
  AGENT_SESSION_ID: "ses_1",
  AGENT_SESSION_NAME: "name",
  AGENT_RUN_ID: "run_1",
  AGENT_RUN_ATTEMPT: "2",
  AGENT_ORCHESTRATOR_API_URL: "http://localhost:8765",
  AGENT_ORCHESTRATOR_TOKEN: "run-token",
  AGENT_ORCHESTRATOR_MCP_URL: "http://127.0.0.1:1/mcp/0",
  AGENT_RUNNER_BOOT: "boot",
};
const options = { passEnv: [], nodeDir: "/node/bin", run };

describe("the environment of an executor", () => {
  it("holds the facts of the run, and of the runner only what is allowed", () => {
    const allowed = {
      HOME: "/h",
      USER: "u",
      SHELL: "/bin/sh",
      LANG: "C",
      LC_ALL: "C",
      LC_TIME: "de",
      TZ: "UTC",
      TMPDIR: "/t",
      TERM: "xterm",
      SSH_AUTH_SOCK: "/s",
    };
    const secret = { SECRET: "x", NODE_OPTIONS: "--inspect", CLAUDECODE: "1", AGENT_RUNNER_TOKEN: "x" };
    expect(executorEnv({ PATH: "/bin", ...allowed, ...secret }, options)).toEqual({
      ...allowed,
      ...facts,
      PATH: "/node/bin:/bin",
    });
  });

  it("holds what the runner passes on, if it is there", () => {
    const env = executorEnv({ A: "1", B: "", C: "3" }, { ...options, passEnv: ["A", "GONE", "B"] });
    expect(env).toEqual({ A: "1", B: "", ...facts, PATH: "/node/bin:/usr/local/bin:/usr/bin:/bin" });
  });

  it("lets no variable of the runner replace a fact of the run", () => {
    const parent = { AGENT_ORCHESTRATOR_TOKEN: "the runner's", AGENT_RUNNER_BOOT: "outer", PATH: "/bin" };
    const env = executorEnv(parent, { ...options, passEnv: Object.keys(parent) });
    expect(env).toEqual({ ...facts, PATH: "/node/bin:/bin" });
  });
});

describe("the markers of a run", () => {
  it("are the entries that only one attempt has", () => {
    expect(runMarkers(facts)).toEqual(["AGENT_RUNNER_BOOT=boot", "AGENT_RUN_ID=run_1", "AGENT_RUN_ATTEMPT=2"]);
  });

  it("are none when one is missing or empty", () => {
    expect(runMarkers({ ...facts, AGENT_RUN_ID: "" })).toBeUndefined();
    expect(runMarkers({})).toBeUndefined();
  });
});
