import { describe, expect, it } from "vitest";
import {
  executorEnv,
  maskEnvProblem,
  maskedVariables,
  passEnvProblem,
  runMarkers,
} from "../../../runner/execution/environment.ts";

const run = {
  sessionId: "ses_1",
  sessionName: "name",
  sessionDir: "/state/sessions/ses_1",
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
  AGENT_SESSION_DIR: "/state/sessions/ses_1",
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
      XDG_CONFIG_HOME: "/c",
      XDG_DATA_HOME: "/d",
      XDG_STATE_HOME: "/st",
      XDG_CACHE_HOME: "/ca",
      AGENT_RUNNER_AGENTS_DIR: "/agents",
    };
    const network = {
      HTTPS_PROXY: "http://p:1",
      no_proxy: "localhost",
      SSL_CERT_FILE: "/ca",
      pip_cert: "/ca",
      NO_PROXY: "",
    };
    const secret = { SECRET: "x", NODE_OPTIONS: "--inspect", CLAUDECODE: "1", AGENT_RUNNER_TOKEN: "x" };
    expect(executorEnv({ PATH: "/bin", ...allowed, ...network, ...secret }, options)).toEqual({
      ...allowed,
      ...network,
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

describe("--pass-env", () => {
  it("takes patterns, which mean what begins so", () => {
    const parent = { UV_A: "1", UV_: "2", UVX: "3", uv_b: "4", PATH: "/bin" };
    expect(executorEnv(parent, { passEnv: ["UV_*"], run })).toEqual({ UV_A: "1", UV_: "2", PATH: "/bin", ...facts });
  });

  it.each(["A", "UV_*", "AGENT_ORCHESTRATOR_API_URL", "npm_config_//x/:_auth"])("takes %s", (name) => {
    expect(passEnvProblem(name)).toBeUndefined();
  });

  it.each(["AGENT_ORCHESTRATOR_TOKEN", "AGENT_*", "A*", "AGENT_RUNNER_BOOT"])("refuses %s, which is ours", (name) => {
    expect(passEnvProblem(name)).toContain(`"${name}" would hand on AGENT_`);
  });

  it.each(["*", "U*V", "*_KEY", "A=1", "A**"])("refuses %s, which means too much or nothing", (name) => {
    expect(passEnvProblem(name)).toContain("such as UV_*");
  });
});

describe("--mask-env", () => {
  it("means names, and with * what begins, ends or holds it", () => {
    const env = { A_TOKEN: "1", TOKEN_B: "2", C: "3", X_KEY_Y: "4", KEY: "5" };
    const meant = (...patterns: string[]) => maskedVariables(patterns, env).map(([name]) => name);
    expect(meant("*_TOKEN")).toEqual(["A_TOKEN"]);
    expect(meant("TOKEN*", "C")).toEqual(["TOKEN_B", "C"]);
    expect(meant("*KEY*", "GONE")).toEqual(["X_KEY_Y", "KEY"]);
    expect(maskedVariables(["C"], env)).toEqual([["C", "3"]]);
  });

  it.each(["*", "**", "A*B", "A=1"])("refuses %s", (name) => {
    expect(maskEnvProblem(name)).toContain("such as *_TOKEN");
  });

  it.each(["A", "*_TOKEN", "AWS_*", "*KEY*"])("takes %s", (name) => expect(maskEnvProblem(name)).toBeUndefined());
});

describe("PATH", () => {
  it("is the user's own, unless the executor is one of ours", () => {
    expect(executorEnv({ PATH: "/mine" }, { passEnv: [], run })["PATH"]).toBe("/mine");
    expect(executorEnv({ PATH: "/mine" }, options)["PATH"]).toBe("/node/bin:/mine");
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
