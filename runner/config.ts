import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { bool, duration, int, list, oneOf, path, seconds, string, url } from "../lib/config/kinds.ts";
import { parseConfig } from "../lib/config/config.ts";
import type { Environment, Parsed, Program, ReadFile, Source, Table } from "../lib/config/config.ts";
import type { LogFormat } from "../lib/log.ts";
import { VERSION } from "../lib/version.ts";
import { maskEnvProblem, passEnvProblem } from "./execution/environment.ts";

/** Settings of a runner. */
export interface RunnerOptions {
  readonly coordinatorUrl: string;
  /** PEM file with the certificate authorities to trust for https. */
  readonly tlsCa: string | undefined;
  /** Name of an executor folder. At most one of this, `executorPath` and `profile` is set. */
  readonly executor: string | undefined;
  /** Executor program, as given: relative to the package, then to the current directory. */
  readonly executorPath: string | undefined;
  readonly profile: string | undefined;
  /** Print the executors and exit. */
  readonly executorList: boolean;
  /** Print the profiles and exit. */
  readonly profileList: boolean;
  /** Form of these lists. */
  readonly output: "text" | "json";
  /** Folders with executors beside the package's own. */
  readonly executorsDirs: readonly string[];
  /** Absolute; not yet known to exist. */
  readonly projectDir: string;
  /** Names of variables that executors get beside the usual ones. */
  readonly passEnv: readonly string[];
  /** Names and patterns of variables whose values are masked in what executors print. */
  readonly maskEnv: readonly string[];
  readonly tags: readonly string[];
  readonly requireMatchingTags: boolean;
  readonly maxRuns: number;
  /** Tells runners of the same host, directory and profile apart; empty when there is one. */
  readonly name: string;
  /** Instead of the system's. */
  readonly hostname: string | undefined;
  /** Base of the state directories; the runner's own is `<stateDir>/<runner_id>`. Empty when there is no home for one. */
  readonly stateDir: string;
  /** Longest silence on the stream, unless two keep-alives are longer. */
  readonly pollTimeoutMs: number;
  /** Upper bound of the time between heartbeats; the coordinator's own wins when it is smaller. */
  readonly heartbeatIntervalMs: number;
  /** Time that runs may take to finish in a drain; 0: no limit. */
  readonly drainTimeoutMs: number;
  /** Port on 127.0.0.1 of the MCP server for executors; 0 takes a free one. */
  readonly mcpPort: number;
  /** MCP server that executors get instead; none is started then. */
  readonly externalMcpUrl: string | undefined;
  /** Execute exactly one run and exit with its outcome. */
  readonly once: boolean;
  readonly verbose: boolean;
  readonly logFormat: LogFormat;
}

const CHOICES = ["executor", "executorPath", "profile"] as const;

/** Every setting of the runner. `env` and `cwd` only decide defaults. */
export function runnerTable(env: Environment, cwd: string): Table<RunnerOptions> {
  const stateHome = stateHomeOf(env);
  return {
    coordinatorUrl: {
      kind: url,
      flag: "coordinator-url",
      short: "c",
      env: "AGENT_ORCHESTRATOR_API_URL",
      oldEnv: "AGENT_RUNTIME_URL",
      default: "http://localhost:8765",
      help: "Coordinator to work for",
    },
    tlsCa: {
      kind: path("FILE"),
      flag: "tls-ca",
      env: "AGENT_RUNNER_TLS_CA",
      default: undefined,
      help: "PEM file with the certificate authorities to trust",
    },
    executor: {
      kind: string("NAME", 256),
      flag: "executor",
      short: "x",
      default: undefined,
      defaultText: "claude-code, when it is installed",
      help: "Executor by name, see --executor-list",
    },
    executorPath: {
      kind: string("PATH"),
      flag: "executor-path",
      short: "e",
      env: "AGENT_EXECUTOR_PATH",
      default: undefined,
      help: "Executor program",
    },
    profile: {
      kind: string("NAME", 256),
      flag: "profile",
      env: "AGENT_RUNNER_PROFILE",
      default: undefined,
      help: "Executor profile, see --profile-list",
    },
    executorList: {
      kind: bool,
      flag: "executor-list",
      short: "l",
      default: false,
      inFile: false,
      help: "List the executors and exit",
    },
    profileList: {
      kind: bool,
      flag: "profile-list",
      default: false,
      inFile: false,
      help: "List the executor profiles and exit",
    },
    output: {
      kind: oneOf("text", "json"),
      flag: "output",
      short: "o",
      default: "text",
      inFile: false,
      help: "Form of --executor-list and --profile-list",
    },
    executorsDirs: {
      kind: list("DIR", (dir) => resolve(cwd, dir)),
      flag: "executors-dir",
      env: "AGENT_RUNNER_EXECUTORS_DIRS",
      default: [],
      help: "Further folder with executors",
    },
    projectDir: {
      kind: path("DIR"),
      flag: "project-dir",
      short: "p",
      env: "AGENT_RUNNER_PROJECT_DIR",
      oldEnv: "PROJECT_DIR",
      default: cwd,
      defaultText: "the current directory",
      help: "Directory that runs work in unless they name one",
    },
    passEnv: {
      kind: list("NAME"),
      flag: "pass-env",
      env: "AGENT_RUNNER_PASS_ENV",
      default: [],
      help: "Variable that executors get beside the usual ones, or with * at its end all that begin so",
    },
    maskEnv: {
      kind: list("NAME"),
      flag: "mask-env",
      env: "AGENT_RUNNER_MASK_ENV",
      default: [],
      help: "Variable whose value is replaced by *** in what executors print; *_TOKEN and AWS_* mean all such names",
    },
    tags: {
      kind: list("TAG"),
      flag: "tag",
      env: "AGENT_RUNNER_TAGS",
      oldEnv: "RUNNER_TAGS",
      default: [],
      help: "Tag that runs can ask for",
    },
    requireMatchingTags: {
      kind: bool,
      flag: "require-matching-tags",
      env: "AGENT_RUNNER_REQUIRE_MATCHING_TAGS",
      default: false,
      help: "Take only runs that name at least one of the tags",
    },
    maxRuns: {
      kind: int(1, 1_000),
      flag: "max-runs",
      env: "AGENT_RUNNER_MAX_RUNS",
      default: 4,
      help: "Most runs at a time",
    },
    name: {
      kind: string("NAME", 128),
      flag: "name",
      env: "AGENT_RUNNER_NAME",
      default: "",
      help: "Tells runners of one directory and profile apart",
    },
    hostname: {
      kind: string("NAME", 256),
      flag: "hostname",
      env: "AGENT_RUNNER_HOSTNAME",
      default: undefined,
      defaultText: "the system's",
      help: "Host name to register with; what is given is part of the runner's identity",
    },
    stateDir: {
      kind: path("DIR"),
      flag: "state-dir",
      env: "AGENT_RUNNER_STATE_DIR",
      default: stateHome === undefined ? "" : join(stateHome, "agent-runner"),
      defaultText: "$XDG_STATE_HOME/agent-runner or ~/.local/state/agent-runner",
      help: "Base of the state directories",
    },
    pollTimeoutMs: {
      kind: seconds({ minMs: 100 }),
      flag: "poll-timeout",
      env: "AGENT_RUNNER_POLL_TIMEOUT",
      oldEnv: "POLL_TIMEOUT",
      default: 30_000,
      defaultText: "30",
      help: "Longest silence on the stream before it is reopened",
    },
    heartbeatIntervalMs: {
      kind: seconds({ minMs: 50 }),
      flag: "heartbeat-interval",
      env: "AGENT_RUNNER_HEARTBEAT_INTERVAL",
      oldEnv: "HEARTBEAT_INTERVAL",
      default: 60_000,
      defaultText: "60",
      help: "Longest time between heartbeats; the coordinator's own wins when it is smaller",
    },
    drainTimeoutMs: {
      kind: duration(),
      flag: "drain-timeout",
      env: "AGENT_RUNNER_DRAIN_TIMEOUT",
      default: 600_000,
      defaultText: "10m",
      help: "Time that runs may take to finish in a drain; 0 sets no limit",
    },
    mcpPort: {
      kind: int(0, 65_535),
      flag: "mcp-port",
      env: "AGENT_RUNNER_MCP_PORT",
      default: 0,
      help: "Port on 127.0.0.1 of the MCP server for executors; 0 takes a free one",
    },
    externalMcpUrl: {
      kind: url,
      flag: "external-mcp-url",
      env: "AGENT_RUNNER_EXTERNAL_MCP_URL",
      default: undefined,
      help: "MCP server that executors get instead of the runner's own",
    },
    once: { kind: bool, flag: "once", default: false, inFile: false, help: "Execute one run, exit with its outcome" },
    verbose: {
      kind: bool,
      flag: "verbose",
      short: "v",
      env: "AGENT_RUNNER_VERBOSE",
      default: false,
      help: "Log more",
    },
    logFormat: {
      kind: oneOf("auto", "pretty", "json"),
      flag: "log-format",
      env: "AGENT_RUNNER_LOG_FORMAT",
      default: "auto",
      help: "auto is pretty on a terminal, JSON otherwise",
    },
  };
}

/** Where programs keep their state; undefined for a user without a home, as a container's arbitrary uid is one. */
function stateHomeOf(env: Environment): string | undefined {
  const given = env["XDG_STATE_HOME"];
  if (given) return given;
  try {
    return join(env["HOME"] || homedir(), ".local/state");
  } catch {
    // Neither HOME nor an entry in /etc/passwd: only who needs the directory says so.
    return undefined;
  }
}

const EPILOGUE = [
  "Signals: the first TERM or INT drains, the second stops the runs, the third ends the process. HUP reads the executor " +
    "profile again; in a program that has a terminal it is a TERM, under nohup nothing.",
  "Exit codes: 0 ended as asked · 2 usage: a flag, a variable, a file or a folder is wrong · 4 refused by the coordinator, or " +
    "another process is this runner · 70 bug · 128 + the third signal. With --once also 1 the run failed · 3 the coordinator " +
    "cannot be reached · 5 the run was stopped · 6 it took longer than it may.",
].join("\n\n");

export function runnerProgram(env: Environment, cwd: string): Program<RunnerOptions> {
  return {
    name: "agent-runner",
    version: VERSION,
    summary: "Takes runs from a coordinator and executes each with an executor program.",
    table: runnerTable(env, cwd),
    epilogue: EPILOGUE,
    defaultFile: ".agent-orchestrator/runner.yaml",
    check: (options, sources) =>
      chosenTwice(options, sources) ??
      mcpTwice(options, sources) ??
      tagsMissing(options) ??
      passEnvWrong(options) ??
      maskEnvWrong(options),
    effective: withStrongestChoice,
  };
}

/** Reads flags, variables and file. Throws UsageError (exit 2). */
export function parseRunnerOptions(
  argv: readonly string[],
  env: Environment,
  readFile: ReadFile,
  cwd: string = process.cwd(),
): Parsed<RunnerOptions> {
  return parseConfig(runnerProgram(env, cwd), argv, env, readFile);
}

type Sources = Readonly<Record<keyof RunnerOptions, Source>>;

const STRENGTH: readonly Source[] = ["flag", "env", "file"];

/** The executor settings of the strongest source that has any: `-x` beats AGENT_EXECUTOR_PATH. */
function choices(sources: Sources): (typeof CHOICES)[number][] {
  for (const source of STRENGTH) {
    const given = CHOICES.filter((key) => sources[key] === source);
    if (given.length > 0) return given;
  }
  return [];
}

function chosenTwice(options: RunnerOptions, sources: Sources): string | undefined {
  const [one, two] = choices(sources);
  if (one === undefined || two === undefined) return undefined;
  const flags = { executor: "--executor", executorPath: "--executor-path", profile: "--profile" };
  return `${flags[one]} ${options[one]} and ${flags[two]} ${options[two]} exclude each other; give one of them`;
}

function mcpTwice({ mcpPort, externalMcpUrl }: RunnerOptions, sources: Sources): string | undefined {
  if (sources.mcpPort === "default" || sources.externalMcpUrl === "default") return undefined;
  return `--mcp-port ${mcpPort} and --external-mcp-url ${externalMcpUrl} exclude each other; give one of them`;
}

function withStrongestChoice(options: RunnerOptions, sources: Sources): RunnerOptions {
  const [chosen] = choices(sources);
  const none = { executor: undefined, executorPath: undefined, profile: undefined };
  return chosen === undefined ? options : { ...options, ...none, [chosen]: options[chosen] };
}

function passEnvWrong({ passEnv }: RunnerOptions): string | undefined {
  const [problem] = passEnv.flatMap((name) => passEnvProblem(name) ?? []);
  return problem === undefined ? undefined : `--pass-env ${problem}`;
}

function maskEnvWrong({ maskEnv }: RunnerOptions): string | undefined {
  const [problem] = maskEnv.flatMap((name) => maskEnvProblem(name) ?? []);
  return problem === undefined ? undefined : `--mask-env ${problem}`;
}

function tagsMissing({ requireMatchingTags, tags }: RunnerOptions): string | undefined {
  if (tags.some((tag) => tag.length > 128)) return "--tag takes at most 128 characters";
  if (new Set(tags).size !== tags.length) return `--tag is given twice with the same value: ${tags.join(", ")}`;
  return requireMatchingTags && tags.length === 0 ? "--require-matching-tags needs at least one --tag" : undefined;
}
