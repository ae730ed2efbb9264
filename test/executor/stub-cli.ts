import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Ended, Started } from "./executors-support.ts";
import { loadRoster, rosterDirs } from "../../executors/lib/roster/load-roster.ts";
import type { RosterEntry } from "../../executors/lib/roster/roster-entry.ts";
import { inRepository } from "../support/paths.ts";
import { invocationOf, start } from "./executors-support.ts";

export const AGENT_CLI = inRepository("executors/agent-cli/ao-agent-cli-exec");

/** The roster of this package, alone. */
export const ENTRIES: readonly RosterEntry[] = loadRoster(rosterDirs({ HOME: "/nonexistent" })).entries;

export function entryOf(name: string): RosterEntry {
  const entry = ENTRIES.find((one) => one.name === name);
  if (entry === undefined) throw new Error(`no agent ${name}`);
  return entry;
}

/** What differs from a run that begins well. */
export interface Wish {
  readonly config?: object;
  readonly change?: object;
  readonly env?: Record<string, string>;
  readonly prompt?: string;
}

/** An invocation's blueprint. */
export const blueprint = (more: object = {}): object => ({
  agent_blueprint: { name: "a", system_prompt: "", mcp_servers: {}, ...more },
});

/** The orchestrator's server, with two secrets that must not be seen. */
export const serversWithSecrets = (url: string): object => ({
  orchestrator: {
    type: "http",
    url,
    headers: { "X-Agent-Session-Id": "ses_1", Authorization: "Bearer header-secret" },
  },
});

export type Event = Readonly<Record<string, unknown>> & { readonly type: string };

export interface Outcome extends Ended {
  readonly events: readonly Event[];
  /** Events of one type. */
  readonly of: (type: string) => readonly Event[];
}

/** A folder with a program that stands in for an agent: it records how it was started, and says what it was told to. */
export class StubCli {
  readonly dir = mkdtempSync(join(tmpdir(), "stub-cli-"));
  readonly program = join(this.dir, "agent");
  readonly project = join(this.dir, "project");
  readonly session = join(this.dir, "session");
  readonly home = join(this.dir, "user");

  constructor() {
    for (const dir of [this.project, this.home]) mkdirSync(dir);
    this.says([]);
  }

  /** What it prints, and then does: shell. */
  says(lines: readonly (string | object)[], then = "exit 0"): void {
    const text = lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n");
    writeFileSync(join(this.dir, "lines"), text === "" ? "" : `${text}\n`);
    const record = [
      `printf '%s\\0' "$@" > ${this.dir}/argv`,
      `env -0 > ${this.dir}/env`,
      `pwd > ${this.dir}/cwd`,
      `cat > ${this.dir}/stdin`,
    ];
    writeFileSync(this.program, ["#!/usr/bin/env bash", ...record, `cat ${this.dir}/lines`, then, ""].join("\n"));
    chmodSync(this.program, 0o755);
  }

  start(executor: string, change: object, env: Record<string, string> = {}, prompt = "do it"): Started {
    const text = invocationOf(prompt, { session_id: "ses_1", project_dir: this.project, ...change });
    const own = { HOME: this.home, AGENT_SESSION_DIR: this.session, ...env };
    return start([executor], text, { cwd: this.project, env: own });
  }

  async run(executor: string, change: object, env: Record<string, string> = {}, prompt = "do it"): Promise<Outcome> {
    const ended = await this.start(executor, change, env, prompt).ended;
    const lines = ended.stdout.split("\n").filter((line) => line !== "");
    const events = lines.map((line) => JSON.parse(line) as Event);
    return { ...ended, events, of: (type) => events.filter((event) => event.type === type) };
  }

  /** A run of an agent of the roster by agent-cli, with its key. */
  runAgent(agent: string, { config = {}, change = {}, env = {}, prompt }: Wish = {}): Promise<Outcome> {
    const [key = "NO_KEY"] = entryOf(agent).endpoint.keys;
    const executor_config = { agent, program: this.program, ...config };
    return this.run(AGENT_CLI, { executor_config, ...change }, { [key]: "key-secret", ...env }, prompt);
  }

  get argv(): string[] {
    return this.#recorded("argv").split("\0").slice(0, -1);
  }

  get stdin(): string {
    return this.#recorded("stdin");
  }

  get cwd(): string {
    return this.#recorded("cwd").trim();
  }

  get env(): Readonly<Record<string, string>> {
    const lines = this.#recorded("env")
      .split("\0")
      .filter((line) => line !== "");
    return Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
    );
  }

  #recorded(name: string): string {
    return readFileSync(join(this.dir, name), "utf8");
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Something that answers HTTP, as an MCP server that is up. */
export async function answering(): Promise<{ server: Server; url: string }> {
  const server = createServer((_, response) => response.writeHead(405).end());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}
