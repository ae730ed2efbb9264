import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../support/executors.ts";
import { inRepository } from "../support/paths.ts";
import { until } from "../support/until.ts";
import { invocationOf, start } from "./executors-support.ts";
import type { Ended, Started } from "./executors-support.ts";

export const ACP = inRepository("executors/acp/ao-acp-exec");

/** What the stub agent is in the roster; `${acpUsage}` and the rest may be changed by a test. */
const ENTRY = {
  roster_version: 1,
  label: "Stub",
  executor: "acp",
  install: { registry: "npm", package: "stub", version: "1.0.0", sizeMb: 1, memoryMb: 50 },
  program: { name: "acp-stub", inner: "stub", versionArgs: ["--version"] },
  start: { args: [], acp: [], prompt: "acp", env: {} },
  endpoint: { keys: ["STUB_KEY"], env: [], model: "STUB_MODEL", logins: [], loginHint: "log in to the stub" },
  home: { variables: { STUB_HOME: "." }, credentials: [], files: [] },
  mcp: { transport: "acp" },
  session: { id: "theirs", resume: "none", acp: "load", sameCwd: true, unknown: "error" },
  approval: { args: [], env: {} },
  limits: {},
  output: { format: "kimi", usage: "none", acpUsage: "answer" },
  instructions: { by: "prompt", project: [], skills: [] },
  lacks: {},
  notes: [],
};

export type Event = Record<string, unknown> & { type: string };

export interface RunOptions {
  /** Over the entry of the roster. */
  readonly entry?: object;
  /** What the stub offers, see test/fixtures/executors/acp-agent.mjs. */
  readonly stub?: object;
  readonly config?: object;
  readonly invocation?: object;
  readonly env?: Record<string, string>;
  readonly cwd?: string;
}

export interface AcpRun extends Ended {
  readonly events: Event[];
}

/** A place with a project, a private folder, a home, and the stub agent in its roster. */
export class AcpPlace {
  readonly dir = mkdtempSync(join(tmpdir(), "ao-acp-"));
  readonly project = join(this.dir, "project");
  readonly session = join(this.dir, "session");
  readonly home = join(this.dir, "home");

  constructor() {
    for (const dir of [this.project, this.home, join(this.dir, "stub")]) mkdirSync(dir);
  }

  remove(): void {
    rmSync(this.dir, { recursive: true });
  }

  start(prompt: string, { entry, stub, config, invocation, env, cwd }: RunOptions = {}): Started {
    const agents = join(this.dir, "config", "agent-runner", "agents");
    mkdirSync(agents, { recursive: true });
    // JSON is YAML.
    writeFileSync(join(agents, "stub.yaml"), JSON.stringify({ ...ENTRY, ...entry }));
    const executor_config = { agent: "stub", program: fixture("acp-agent.mjs"), ...config };
    return start([ACP], invocationOf(prompt, { project_dir: this.project, executor_config, ...invocation }), {
      cwd: cwd ?? this.project,
      env: {
        HOME: this.home,
        XDG_CONFIG_HOME: join(this.dir, "config"),
        AGENT_SESSION_DIR: this.session,
        STUB_KEY: "k",
        ACP_STUB: JSON.stringify(stub ?? {}),
        ACP_STUB_DIR: join(this.dir, "stub"),
        ...env,
      },
    });
  }

  async run(prompt: string, options: RunOptions = {}): Promise<AcpRun> {
    const ended = await this.start(prompt, options).ended;
    return { ...ended, events: eventsIn(ended.stdout) };
  }

  /** A later run of the conversation that `first` has named. */
  resume(first: Pick<AcpRun, "events">, prompt: string, options: RunOptions = {}): Promise<AcpRun> {
    const invocation = { mode: "resume", executor_session_id: sessionOf(first), ...options.invocation };
    return this.run(prompt, { ...options, invocation });
  }

  /** What the stub has written down under this key, oldest first. */
  log(key: string): unknown[] {
    const lines = readFileSync(join(this.dir, "stub", "log.jsonl"), "utf8")
      .split("\n")
      .filter(Boolean);
    return lines
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .flatMap((one) => (key in one ? [one[key]] : []));
  }
}

export function eventsIn(stdout: string): Event[] {
  return stdout
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Event);
}

export function sessionOf({ events }: Pick<AcpRun, "events">): string {
  return String(events.find(({ type }) => type === "session")?.["executor_session_id"]);
}

/** Events of one type, without the type. */
export function eventsOf(events: readonly Event[], wanted: string): Record<string, unknown>[] {
  const found = events.filter(({ type }) => type === wanted);
  return found.map((event) => Object.fromEntries(Object.entries(event).filter(([key]) => key !== "type")));
}

/** Waits until the run has said an event that holds this text. */
export async function untilSaid(started: Started, text: string): Promise<void> {
  await until(() => started.stdout().includes(text), `${text} on stdout`);
}
