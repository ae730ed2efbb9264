import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { EXIT } from "../../lib/exit-codes.ts";
import { Program } from "../support/cluster.ts";
import { fixture } from "../support/executors.ts";
import { inRepository } from "../support/paths.ts";
import type { Random } from "../support/random.ts";
import { SlowProxy } from "../support/slow-proxy.ts";
import { until } from "../support/until.ts";

/** A tenth of what production has, but for what a slow uplink needs. Only a wall clock that jumps makes anything as old as --retain. */
const TIMES = [
  ...["--lease-ttl", "6s", "--heartbeat", "1s", "--accept-deadline", "5s", "--restart-grace", "8s", "--retain", "1h"],
  ...["--stream-keepalive", "1s", "--reconnect-min", "50ms", "--reconnect-max", "1s", "--stop-grace", "1s"],
];

/** What the uplink of the second runner carries a second. */
const UPLINK_BYTES = 400_000;

/** Disks are small so that they fill at once. */
const DISKS = { store: "2g", "state-0": "64m", "state-1": "64m" };
type Disk = keyof typeof DISKS;

/** What happens to the programs, each for a while. */
export const FAULTS = [
  "kill-coordinator",
  "kill-runner",
  "end-runner",
  "freeze-coordinator",
  "freeze-runner",
  "cut-network",
  "fill-store",
  "fill-state",
  "move-clock",
] as const;
export type Fault = (typeof FAULTS)[number];

interface Clocked {
  readonly program: Program;
  readonly clock: string;
  readonly log: string;
}

/** A coordinator and two runners, the second behind a slow proxy, each with a disk and a wall clock of its own. */
export class World {
  readonly url: string;
  /** Why disks are not filled; undefined when they are. */
  readonly noDisks: string | undefined;
  readonly #dir: string;
  readonly #coordinator: Clocked;
  #runners: Clocked[] = [];
  #proxy: SlowProxy | undefined;

  private constructor(dir: string, port: number, noDisks: string | undefined) {
    this.#dir = dir;
    this.url = `http://127.0.0.1:${port}`;
    this.noDisks = noDisks;
    const store = ["--store", join(dir, "store", "store.db"), "--listen", `127.0.0.1:${port}`];
    this.#coordinator = this.#program("coordinator", "coordinator/main.ts", [...store, ...TIMES]);
  }

  static async start(dir: string, port: number): Promise<World> {
    const world = new World(dir, port, mountDisks(dir));
    world.#coordinator.program.start();
    await world.ready();
    world.#proxy = await SlowProxy.start({ url: world.url, up: UPLINK_BYTES, down: UPLINK_BYTES });
    world.#runners = [world.#runner(0, world.url), world.#runner(1, world.#proxy.url)];
    for (const { program } of world.#runners) program.start();
    return world;
  }

  get storePath(): string {
    return join(this.#dir, "store", "store.db");
  }

  #runner(index: number, url: string): Clocked {
    const project = join(this.#dir, "project");
    mkdirSync(project, { recursive: true });
    return this.#program(`runner-${index}`, "runner/main.ts", [
      ...["--coordinator-url", url, "--executor-path", fixture("noisy"), "--max-runs", "3", "--name", `r${index}`],
      ...["--state-dir", join(this.#dir, `state-${index}`), "--project-dir", project, "--pass-env", "SOAK_DIR"],
    ]);
  }

  #program(name: string, file: string, args: readonly string[]): Clocked {
    const clock = join(this.#dir, `${name}.clock`);
    writeFileSync(clock, "0");
    const preload = ["--import", inRepository("test/fixtures/moved-clock.ts")];
    const env = { ...process.env, MOVED_CLOCK_FILE: clock, SOAK_DIR: this.#dir };
    const log = join(this.#dir, `${name}.log`);
    return { clock, log, program: new Program(file, [...args, "--log-format", "json"], log, env, preload) };
  }

  async ready(timeoutMs = 60_000): Promise<void> {
    const isReady = async () => {
      try {
        return (await fetch(`${this.url}/ready`, { signal: AbortSignal.timeout(5_000) })).ok;
      } catch {
        return false;
      }
    };
    await until(isReady, `the coordinator at ${this.url} is ready`, timeoutMs);
  }

  /**
   * Starts what ended by itself again, as whoever supervises it would.
   * @returns the last words of programs that had no reason to end: only one that begins on a full disk has.
   */
  revive(): string[] {
    const unexplained: string[] = [];
    for (const { program, log } of [this.#coordinator, ...this.#runners]) {
      if (program.running) continue;
      const words = readFileSync(log, "utf8").trimEnd().split("\n").slice(-2).join(" ");
      if (program.exitCode !== EXIT.refused || !words.includes("full")) unexplained.push(`${log}: ${words}`);
      program.start();
    }
    return unexplained;
  }

  /** Lets it happen, and heals it. Returns what happened, in words. */
  suffer(fault: Fault, random: Random): Promise<string> {
    const index = random.int(0, this.#runners.length - 1);
    const runner = { program: this.#runners[index]?.program, name: `runner ${index}` };
    const coordinator = { program: this.#coordinator.program, name: "the coordinator" };
    const forMs = random.int(500, 5_000);
    const happens: Record<Fault, () => Promise<string>> = {
      "kill-coordinator": () => ended(coordinator, "SIGKILL", forMs / 5),
      "kill-runner": () => ended(runner, "SIGKILL", forMs),
      "end-runner": () => ended(runner, "SIGTERM", forMs),
      "freeze-coordinator": () => frozen(coordinator, forMs),
      "freeze-runner": () => frozen(runner, forMs * 2),
      "cut-network": () => this.#cut(forMs),
      "fill-store": () => this.#filled("store", forMs),
      "fill-state": () => this.#filled(index === 0 ? "state-0" : "state-1", forMs),
      "move-clock": () => this.#moved(random),
    };
    return happens[fault]();
  }

  async #cut(forMs: number): Promise<string> {
    this.#proxy?.block();
    await delay(forMs);
    this.#proxy?.unblock();
    return `the network of runner 1 cut for ${forMs} ms`;
  }

  async #filled(disk: Disk, forMs: number): Promise<string> {
    if (this.noDisks !== undefined) return `the disk ${disk} would have been full`;
    const filler = join(this.#dir, disk, "filler");
    fill(filler);
    await delay(forMs);
    rmSync(filler);
    return `the disk ${disk} full for ${forMs} ms`;
  }

  async #moved(random: Random): Promise<string> {
    const { clock } = random.pick([this.#coordinator, ...this.#runners]);
    const byMs = random.pick([0, 1_000, 60_000, 3_600_000, 6 * 3_600_000]) * random.pick([-1, 1]);
    // Moved into its place, so that nobody reads half of it.
    await writeFile(`${clock}.new`, String(byMs));
    await rename(`${clock}.new`, clock);
    return `${clock.split("/").at(-1)} wrong by ${byMs} ms`;
  }

  /** Ends the runners and then, so that its file is whole, the coordinator. */
  async end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    await Promise.all(this.#runners.map(({ program }) => program.end("SIGKILL")));
    await this.#proxy?.stop();
    await this.#coordinator.program.end(signal);
  }

  /** The disks are gone, and what was on them. */
  unmount(): void {
    if (this.noDisks === undefined) for (const disk of Object.keys(DISKS)) unmountDisk(join(this.#dir, disk));
  }
}

interface Victim {
  readonly program: Program | undefined;
  readonly name: string;
}

async function ended({ program, name }: Victim, signal: "SIGKILL" | "SIGTERM", forMs: number): Promise<string> {
  await program?.end(signal);
  await delay(forMs);
  program?.start();
  return `${signal} to ${name}, away for ${Math.round(forMs)} ms`;
}

async function frozen({ program, name }: Victim, forMs: number): Promise<string> {
  program?.signal("SIGSTOP");
  await delay(forMs);
  program?.signal("SIGCONT");
  return `${name} frozen for ${forMs} ms`;
}

function mountDisks(dir: string): string | undefined {
  for (const [disk, size] of Object.entries(DISKS)) {
    const path = join(dir, disk);
    mkdirSync(path);
    try {
      if (process.platform !== "linux") throw new Error("only Linux has tmpfs");
      execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", path], { stdio: "pipe" });
    } catch (error) {
      return String(error).split("\n")[0];
    }
  }
  return undefined;
}

function unmountDisk(path: string): void {
  execFileSync("umount", ["--lazy", path]);
}

/** Writes until nothing more fits. */
function fill(path: string): void {
  const fd = openSync(path, "w");
  try {
    for (const size of [4 * 1024 * 1024, 65_536, 4_096]) while (writtenWhole(fd, Buffer.alloc(size)));
  } finally {
    closeSync(fd);
  }
}

function writtenWhole(fd: number, bytes: Buffer): boolean {
  try {
    return writeSync(fd, bytes) === bytes.length;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOSPC") return false;
    throw error;
  }
}
