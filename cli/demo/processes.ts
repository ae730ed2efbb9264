import { closeSync, openSync, readFileSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { connect } from "../../client/connect.ts";
import { Runner_Presence } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { Child } from "../children.ts";
import { ChildEnded, claimPort, endChild, startChild, untilHealthy } from "../children.ts";
import { cleanEnv } from "./context.ts";

/** Time that a child gets after each signal at the end. */
const END_GRACE_MS = 2_000;
const HOST = "127.0.0.1";

/** The coordinator and the runners of the demo, with their logs, in a directory of its own. */
export class DemoProcesses {
  readonly dir: string;
  /** By the name of their log. */
  readonly #children = new Map<string, Child>();
  #url = "";
  /** `dir` exists and is the demo's alone: `close` deletes it. */
  constructor(dir: string) {
    this.dir = dir;
  }

  /** Starts the coordinator, and returns its URL. */
  async open(): Promise<string> {
    const listen = `${HOST}:${await claimPort(HOST, 0)}`;
    this.#url = `http://${listen}`;
    await mkdir(this.#project);
    const store = ["--store", join(this.dir, "coordinator.db")];
    await untilHealthy(this.#url, this.#start("coordinator", "coordinator", ["--listen", listen, ...store]));
    return this.#url;
  }

  get #project(): string {
    return join(this.dir, "project");
  }

  /** Starts a runner, and waits until it takes runs. */
  async runner(name: string, executor: string, tags: readonly string[]): Promise<void> {
    const places = ["--project-dir", this.#project, "--state-dir", join(this.dir, "state")];
    const flags = ["--executor", executor, "--name", name, ...tags.flatMap((tag) => ["--tag", tag])];
    const runner = this.#start("runner", name, ["--coordinator-url", this.#url, ...places, ...flags]);
    await untilOnline(this.#url, name, runner);
  }

  #start(program: Child["program"], name: string, args: string[]): Child {
    const log = openSync(this.#logFile(name), "a");
    try {
      const child = startChild(program, [...args, "--log-format", "json"], {
        cwd: this.dir,
        env: cleanEnv(),
        output: log,
        detached: true,
      });
      this.#children.set(name, child);
      return child;
    } finally {
      closeSync(log);
    }
  }

  #logFile(name: string): string {
    return join(this.dir, `${name}.log`);
  }

  /** The last lines of every log, to explain a failure. */
  logTails(lines = 15): string {
    return [...this.#children.keys()]
      .map((name) => {
        const tail = readFileSync(this.#logFile(name), "utf8").trimEnd().split("\n").slice(-lines);
        return `--- ${name}\n${tail.join("\n")}`;
      })
      .join("\n");
  }

  /** Ends every process and deletes the directory. */
  async close(): Promise<void> {
    const [coordinator, ...runners] = this.#children.values();
    await Promise.all(runners.map((runner) => endChild(runner, END_GRACE_MS)));
    if (coordinator !== undefined) await endChild(coordinator, END_GRACE_MS);
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** Waits until the runner takes runs. */
async function untilOnline(url: string, name: string, runner: Child): Promise<void> {
  const { fleet, close } = connect(url);
  try {
    for (;;) {
      const { runners } = await fleet.listRunners({});
      if (runners.some((one) => one.name === name && one.presence === Runner_Presence.ONLINE)) return;
      const code = runner.exitCode();
      if (code !== undefined) throw new ChildEnded("runner", code);
      await delay(20);
    }
  } finally {
    close();
  }
}
