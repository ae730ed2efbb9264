import { describe, expect, it } from "vitest";
import { COORDINATOR_TABLE, parseCoordinatorConfig } from "../../../coordinator/config.ts";
import type { CoordinatorConfig } from "../../../coordinator/config.ts";
import { formatDurationMs, parseDurationMs, UsageError } from "../../../lib/config/config.ts";
import type { CheckedConfig, Parsed, Setting } from "../../../lib/config/config.ts";
import { parseRunnerOptions, runnerTable } from "../../../runner/config.ts";
import type { RunnerOptions } from "../../../runner/config.ts";

const noFile = () => undefined;

function configOf<C>(parsed: Parsed<C>): C {
  if (parsed.type !== "config") throw new Error(`not a configuration: ${parsed.text}`);
  return parsed.config;
}

function coordinator(argv: string[], env = {}, file?: string): CoordinatorConfig {
  return configOf(parseCoordinatorConfig(argv, env, () => file));
}

function runner(argv: string[], env = {}, file?: string): RunnerOptions {
  return configOf(parseRunnerOptions(argv, { HOME: "/home/u", ...env }, () => file, "/project"));
}

const tables: [string, Record<string, Setting<never>>][] = [
  ["coordinator", COORDINATOR_TABLE as never],
  ["runner", runnerTable({ HOME: "/home/u" }, "/project") as never],
];

describe.each(tables)("the table of the %s", (_, table) => {
  const settings = Object.values(table);

  it("gives every key a flag of its own, a help text and a default", () => {
    for (const setting of settings) {
      expect(setting.flag).toMatch(/^[a-z]+(-[a-z]+)*$/);
      expect(setting.help.length).toBeGreaterThan(5);
      expect("default" in setting).toBe(true);
    }
    const names = settings.flatMap(({ flag, short }) => [flag, short ?? []].flat());
    expect(new Set(names).size).toBe(names.length);
    const variables = settings.flatMap(({ env, oldEnv }) => [env ?? [], oldEnv ?? []].flat());
    expect(new Set(variables).size).toBe(variables.length);
  });

  it("has a default that its own kind accepts when it is written down", () => {
    for (const { kind, default: value, defaultText } of settings as unknown as Setting<unknown>[]) {
      if (typeof value === "number") {
        const text = defaultText ?? String(value);
        expect(kind.parse([text])).toBe(value);
      }
    }
  });
});

describe("the flags of ADR 13", () => {
  it.each(
    (
      "listen store memory lease-ttl heartbeat accept-deadline restart-grace no-match-timeout retain tls-cert tls-key " +
      "insecure allowed-host log-format log-level stream-keepalive stream-max-age reconnect-min reconnect-max stop-grace runner-away"
    ).split(" "),
  )("--%s is one of the coordinator", (flag) => {
    expect(Object.values(COORDINATOR_TABLE).map((setting) => setting.flag)).toContain(flag);
  });

  it.each(
    (
      "coordinator-url executor executor-path executor-list project-dir verbose profile profile-list executors-dir " +
      "pass-env mask-env tag require-matching-tags max-runs name hostname state-dir drain-timeout once log-format"
    ).split(" "),
  )("--%s is one of the runner", (flag) => {
    expect(Object.values(runnerTable({}, "/")).map((setting) => setting.flag)).toContain(flag);
  });
});

describe("precedence", () => {
  it("is flag, then variable, then file, then default", () => {
    const env = { AGENT_RUNNER_MAX_RUNS: "3" };
    const file = "max-runs: 2";
    expect(runner(["--max-runs", "4"], env, file).maxRuns).toBe(4);
    expect(runner([], env, file).maxRuns).toBe(3);
    expect(runner([], {}, file).maxRuns).toBe(2);
    expect(runner([]).maxRuns).toBe(4);
  });

  it("says where every value came from", () => {
    const parsed = parseRunnerOptions(["-c", "http://h:1"], { PROJECT_DIR: "/p" }, () => "name: n", "/project");
    expect(parsed).toMatchObject({
      sources: { coordinatorUrl: "flag", projectDir: "env", name: "file", maxRuns: "default" },
    });
  });

  it("takes an empty variable as unset, and the last of a repeated flag", () => {
    expect(runner(["--name", "a", "--name", "b"], { AGENT_ORCHESTRATOR_API_URL: "" })).toMatchObject({
      name: "b",
      coordinatorUrl: "http://localhost:8765",
    });
  });
});

describe("--help", () => {
  it.each([
    ["agent-coordinator", () => parseCoordinatorConfig(["--help"], {}, noFile)],
    ["agent-runner", () => parseRunnerOptions(["--help"], {}, noFile, "/")],
  ])("of %s says what signals do and what exit codes mean, for 90 columns", (_program, parse) => {
    const parsed = parse();
    const text = parsed.type === "text" ? parsed.text : "";
    const epilogue = text.slice(text.indexOf("Signals: "));
    expect(epilogue).toMatch(
      /^Signals: .*TERM[^]*HUP\s+reads [^]*\n\nExit codes: 0 [^]*\s2\s+usage[^]*\s4\s+refused[^]*\s70\s+bug/,
    );
    for (const line of epilogue.split("\n")) expect(line.length).toBeLessThanOrEqual(90);
  });
});

describe("the runner's variables of the seeds", () => {
  it("are read: POLL_TIMEOUT and HEARTBEAT_INTERVAL in seconds", () => {
    const env = { POLL_TIMEOUT: "5", HEARTBEAT_INTERVAL: "1.5", RUNNER_TAGS: "gpu,docker", AGENT_EXECUTOR_PATH: "e/x" };
    expect(runner([], env)).toMatchObject({
      pollTimeoutMs: 5_000,
      heartbeatIntervalMs: 1_500,
      tags: ["gpu", "docker"],
      executorPath: "e/x",
    });
  });

  it("all have names of our own, which win; the bare ones are warned of", () => {
    const bare = { PROJECT_DIR: "/old", RUNNER_TAGS: "old", POLL_TIMEOUT: "5", HEARTBEAT_INTERVAL: "5" };
    const parsed = parseRunnerOptions([], bare, noFile, "/");
    const warnings = Object.keys(bare).map((name) =>
      expect.stringMatching(new RegExp(`^${name} is deprecated: set AGENT_RUNNER_\\w+ instead$`)),
    );
    expect(parsed).toMatchObject({ config: { projectDir: "/old", tags: ["old"] }, warnings });
    const ours = {
      AGENT_RUNNER_PROJECT_DIR: "/new",
      AGENT_RUNNER_TAGS: "new",
      AGENT_RUNNER_POLL_TIMEOUT: "6",
      AGENT_RUNNER_HEARTBEAT_INTERVAL: "7",
    };
    expect(parseRunnerOptions([], { ...bare, ...ours }, noFile, "/")).toMatchObject({
      config: { projectDir: "/new", tags: ["new"], pollTimeoutMs: 6_000, heartbeatIntervalMs: 7_000 },
      warnings: [],
    });
  });

  it("include AGENT_RUNTIME_URL, with a warning, when the newer one is unset", () => {
    const parsed = parseRunnerOptions([], { AGENT_RUNTIME_URL: "http://old:1/" }, noFile, "/");
    expect(parsed).toMatchObject({ config: { coordinatorUrl: "http://old:1" } });
    expect(parsed).toMatchObject({ warnings: [expect.stringContaining("set AGENT_ORCHESTRATOR_API_URL instead")] });
    const env = { AGENT_RUNTIME_URL: "http://old:1", AGENT_ORCHESTRATOR_API_URL: "http://new:1" };
    expect(parseRunnerOptions([], env, noFile, "/")).toMatchObject({
      config: { coordinatorUrl: "http://new:1" },
      warnings: [],
    });
  });
});

describe("the choice of an executor", () => {
  it.each([
    [["-x", "a", "-e", "b"], "--executor a and --executor-path b exclude each other"],
    [["-x", "a", "--profile", "p"], "--executor a and --profile p exclude each other"],
    [["-e", "a", "--profile", "p"], "--executor-path a and --profile p exclude each other"],
  ])("refuses %s", (argv, text) => {
    expect(() => runner(argv)).toThrow(text);
  });

  it("lets a flag win over the variable without complaint", () => {
    const options = runner(["-x", "test-executor"], { AGENT_EXECUTOR_PATH: "/bin/x" });
    expect(options).toMatchObject({ executor: "test-executor", executorPath: undefined });
  });
});

describe("what is wrong", () => {
  it.each([
    [["--lease-ttl", "soon"], '--lease-ttl is "soon"; expected a duration such as 200ms, 10s, 10m or 30d'],
    [["--lease-ttl", "10"], '--lease-ttl is "10"; expected a duration'],
    [["--lease-ttl"], "--lease-ttl needs a value: --lease-ttl DURATION"],
    [["--listen", "nowhere"], '--listen is "nowhere"; expected HOST:PORT'],
    [["--listen", "h:70000"], '--listen is "h:70000"; expected HOST:PORT'],
    [["--log-format", "xml"], '--log-format is "xml"; expected one of auto, pretty, json'],
    [["--leasettl", "1s"], "unknown flag --leasettl; did you mean --lease-ttl?"],
    [["--lease", "1s"], "unknown flag --lease; did you mean --lease-ttl?"],
    [["-q"], "unknown flag -q"],
    [["-lease-ttl", "1s"], "unknown flag -lease-ttl; did you mean --lease-ttl?"],
    [["-lease-ttl=1s"], "unknown flag -lease-ttl=1s; did you mean --lease-ttl=1s?"],
    [["start"], 'unexpected argument "start"'],
    [["--heartbeat", "30s"], "--heartbeat 30s must be less than half of --lease-ttl 45s"],
    [["--reconnect-min", "20s"], "--reconnect-min 20s is more than --reconnect-max 10s"],
    [["--tls-cert", "c.pem"], "--tls-cert and --tls-key go together"],
    [["--listen", "0.0.0.0:1"], "--listen 0.0.0.0 can be reached by others"],
    [["--config", "gone.yaml"], '--config is "gone.yaml", which is not there'],
  ])("%s is told by name, value and expectation", (argv, text) => {
    const attempt = () => parseCoordinatorConfig(argv, {}, noFile);
    expect(attempt).toThrow(UsageError);
    expect(attempt).toThrow(text);
  });

  it.each([
    ["lease_ttl: 10s", 'unknown key "lease_ttl"; did you mean lease-ttl?'],
    ["lease-ttl: [1s, 2s]", "coordinator.yaml: lease-ttl is"],
    ["lease-ttl: {a: 1}", 'lease-ttl is {"a":1}; expected a plain value or a list'],
    ["- lease-ttl", "is not a YAML mapping"],
    ["a: [", "is not YAML"],
  ])("%s in the file is told with the path of the file", (text, message) => {
    expect(() => coordinator([], {}, text)).toThrow(message);
    expect(() => coordinator([], {}, text)).toThrow(".agent-orchestrator/coordinator.yaml");
  });

  it("names the variable that carries a wrong value", () => {
    expect(() => runner([], { POLL_TIMEOUT: "long" })).toThrow('POLL_TIMEOUT is "long"; expected seconds such as 30');
  });
});

describe("kinds", () => {
  it.each([
    ["0", 0],
    ["200ms", 200],
    ["10s", 10_000],
    ["1m30s", 90_000],
    ["1.5h", 5_400_000],
    ["30d", 2_592_000_000],
  ])("reads the duration %s", (text, valueMs) => {
    expect(parseDurationMs(text)).toBe(valueMs);
    expect(parseDurationMs(formatDurationMs(valueMs))).toBe(valueMs);
  });

  it.each(["", "10", "-1s", "1 s", "s", "1w", "1s1"])("refuses the duration %j", (text) => {
    expect(parseDurationMs(text)).toBeUndefined();
  });

  it("reads an address, IPv6 in brackets, and no host as loopback", () => {
    expect(coordinator(["--listen", "[::1]:0"]).listen).toEqual({ host: "::1", port: 0 });
    expect(coordinator(["--listen", ":80"]).listen).toEqual({ host: "127.0.0.1", port: 80 });
  });

  it("reads lists from repeated flags, from a file, and from a variable by commas", () => {
    expect(runner(["--tag", "a", "--tag", "b"]).tags).toEqual(["a", "b"]);
    expect(runner([], {}, "tag: [a, b]").tags).toEqual(["a", "b"]);
    expect(runner([], {}, "tag: a").tags).toEqual(["a"]);
  });

  it("reads numbers and switches from a file", () => {
    expect(runner([], {}, "max-runs: 9\nrequire-matching-tags: true\ntag: x")).toMatchObject({
      maxRuns: 9,
      requireMatchingTags: true,
    });
  });

  it("makes paths absolute and defaults the state directory to the user's state home", () => {
    expect(runner([]).stateDir).toBe("/home/u/.local/state/agent-runner");
    expect(runner([], { XDG_STATE_HOME: "/s" }).stateDir).toBe("/s/agent-runner");
  });
});

describe("--check-config", () => {
  const checked = (parsed: Parsed<unknown>) => {
    if (parsed.type !== "text") throw new Error("no text");
    return JSON.parse(parsed.text) as CheckedConfig;
  };

  it("gives every setting with its source, instead of a configuration", () => {
    const { program, settings } = checked(
      parseCoordinatorConfig(["--check-config", "--memory"], { AGENT_COORDINATOR_STORE: "/s" }, () => "retain: 1d"),
    );
    expect(program).toBe("agent-coordinator");
    expect(Object.keys(settings)).toEqual(Object.values(COORDINATOR_TABLE).map(({ flag }) => flag));
    expect(settings).toMatchObject({
      listen: { value: { host: "127.0.0.1", port: 8765 }, source: "default" },
      store: { value: "/s", source: "env" },
      memory: { value: true, source: "flag" },
      retain: { value: 86_400_000, source: "file" },
      "tls-cert": { value: null, source: "default" },
    });
  });

  it("gives what counts where one setting takes the place of another, and the warnings", () => {
    const env = { AGENT_EXECUTOR_PATH: "e/x", AGENT_RUNTIME_URL: "http://h:1" };
    const { settings, warnings } = checked(parseRunnerOptions(["-x", "a", "--check-config"], env, noFile, "/"));
    expect(settings).toMatchObject({ executor: { value: "a" }, "executor-path": { value: null } });
    expect(warnings).toEqual([expect.stringContaining("AGENT_RUNTIME_URL is deprecated")]);
  });

  it("refuses what a start would refuse", () => {
    expect(() => parseRunnerOptions(["--check-config", "--max-runs", "x"], {}, noFile)).toThrow(UsageError);
    expect(() => parseCoordinatorConfig(["--check-config", "--heartbeat", "1h"], {}, noFile)).toThrow(UsageError);
  });
});

describe("help and version", () => {
  it("list every flag with its variable and default, and come instead of a configuration", () => {
    const parsed = parseRunnerOptions(["--help", "--max-runs", "x"], {}, noFile, "/");
    if (parsed.type !== "text") throw new Error("no text");
    for (const { flag, env } of Object.values(runnerTable({}, "/"))) {
      expect(parsed.text).toContain(`--${flag}`);
      if (env !== undefined) expect(parsed.text).toContain(env);
    }
    expect(parseCoordinatorConfig(["--version"], {}, noFile)).toMatchObject({
      type: "text",
      text: expect.stringMatching(/^agent-coordinator \d+\.\d+\.\d+\n$/),
    });
  });
});
