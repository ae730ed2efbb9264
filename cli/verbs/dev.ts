import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { InvalidArgumentError } from "commander";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { inPackage } from "../../lib/package-root.ts";
import { COORDINATOR_TABLE } from "../../coordinator/config.ts";
import type { Runner } from "../../gen/agentrunner/v1/runner_pb.ts";
import { Runner_Presence } from "../../gen/agentrunner/v1/runner_pb.ts";
import { hostPort } from "../../lib/config/kinds.ts";
import type { HostPort } from "../../lib/config/kinds.ts";
import { EXIT } from "../../lib/exit-codes.ts";
import { connect } from "../../client/connect.ts";
import { ExecutorError, discoverExecutors, findExecutor } from "../../runner/settings/discovery.ts";
import type { Child } from "../children.ts";
import { ChildEnded, answers, claimPort, endChild, startChild, untilHealthy } from "../children.ts";
import type { Cli, Program } from "../cli.ts";
import { CliError, usage } from "../errors.ts";
import type { Paint } from "../text/format.ts";
import { collect, count } from "../options.ts";

interface DevOptions {
  readonly executor?: string[];
  readonly listen: HostPort;
  readonly store?: string;
  readonly memory?: true;
  readonly projectDir?: string;
  readonly maxRuns?: number;
}

const DEFAULT_EXECUTOR = "test-executor";
const EXECUTORS_DIR = inPackage("executors");

/** Time that a child gets after each signal when the other one has died. */
const END_GRACE_MS = 5_000;
/** Longest wait for the runners before the banner is shown without them. */
const REGISTER_MS = 10_000;

/** `ao dev`: a coordinator and runners, as child processes, until Ctrl+C. */
export function addDev(ao: Command, program: Program): void {
  ao.command("dev")
    .description("start a coordinator and a runner here, until Ctrl+C")
    .argument("[runner-args...]", "after --: further flags of every runner")
    .option("-x, --executor <name>", `executor; repeat for a runner each (default: ${DEFAULT_EXECUTOR})`, collect)
    .option("--listen <host:port>", "address of the coordinator; port 0 takes a free one", address, {
      host: "127.0.0.1",
      port: 8765,
    })
    .option("--store <file>", `file that keeps everything (default: ${COORDINATOR_TABLE.store.default})`)
    .option("--memory", "keep everything in memory; nothing survives")
    .option("--project-dir <dir>", "directory that runs work in (default: the current one)")
    .option("--max-runs <n>", "most runs at a time, of each runner", count)
    .addHelpText("after", "\nExample:\n  ao dev -x test-executor --memory -- --tag docker")
    .action(program.action((cli, runnerArgs: string[], options: DevOptions) => dev(cli, runnerArgs, options)));
}

function address(text: string): HostPort {
  const parsed = hostPort.parse([text]);
  if (parsed === undefined) throw new InvalidArgumentError("it must be HOST:PORT such as 127.0.0.1:8765.");
  return parsed;
}

async function dev(cli: Cli, runnerArgs: readonly string[], options: DevOptions): Promise<number> {
  if (options.memory && options.store !== undefined) throw usage("--memory and --store exclude each other");
  const executors = options.executor ?? [DEFAULT_EXECUTOR];
  checkExecutors(executors);
  const listen = authority(options.listen.host, await freePort(options.listen));
  const url = `http://${listen}`;
  const store = options.memory ? undefined : resolve(options.store ?? COORDINATOR_TABLE.store.default);

  const family = new Family();
  const undo = family.obeySignals();
  try {
    // In a group of its own, so that it outlives the drain that a Ctrl+C begins in the runners.
    const flags = ["--listen", listen, ...(store === undefined ? ["--memory"] : ["--store", store])];
    family.coordinator = startChild("coordinator", flags, { detached: true });
    await untilHealthy(url, family.coordinator);
    const sinceMs = Date.now();
    for (const name of executors) {
      family.runners.push(startChild("runner", runnerFlags(url, name, options, runnerArgs)));
    }
    const runners = await registered(url, family, sinceMs);
    if (!family.ending) cli.io.stderr.write(banner({ url, store, runners, installed: installed() }, cli.paintTalk));
    return await family.end();
  } catch (error) {
    await family.kill();
    if (error instanceof ChildEnded) return error.exitCode;
    throw error;
  } finally {
    undo();
  }
}

function runnerFlags(url: string, executor: string, options: DevOptions, more: readonly string[]): string[] {
  const flags = ["--coordinator-url", url, "--executor", executor];
  if (options.projectDir !== undefined) flags.push("--project-dir", options.projectDir);
  if (options.maxRuns !== undefined) flags.push("--max-runs", String(options.maxRuns));
  return [...flags, ...more];
}

function checkExecutors(names: readonly string[]): void {
  const repeated = names.find((name, i) => names.indexOf(name) !== i);
  if (repeated !== undefined)
    throw usage(`-x ${repeated} is given twice`, "--max-runs N lets one runner take more runs");
  const discovery = discoverExecutors(EXECUTORS_DIR);
  try {
    for (const name of names) findExecutor(discovery, name);
  } catch (error) {
    if (error instanceof ExecutorError)
      throw usage(error.message, "`agent-runner --executor-list` shows what there is");
    throw error;
  }
}

function installed(): string[] {
  return discoverExecutors(EXECUTORS_DIR).executors.map(({ name }) => name);
}

const authority = (host: string, port: number): string => `${host.includes(":") ? `[${host}]` : host}:${port}`;

async function freePort({ host, port }: HostPort): Promise<number> {
  const url = `http://${authority(host, port)}`;
  try {
    return await claimPort(host, port);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    if (code !== "EADDRINUSE") throw usage(`cannot listen on ${authority(host, port)}: ${code || String(error)}`);
    const ours = await answers(url);
    const other = `take a free port: ao dev --listen ${authority(host, 0)}`;
    throw new CliError(
      EXIT.refused,
      `port ${port} is in use${ours ? " by a coordinator" : ""}`,
      ours ? `use that one (\`ao -c ${url} runners\`), or ${other}` : other,
    );
  }
}

/** The runners once every one is online; those that are after a while, so that a slow one does not hide the banner. */
async function registered(url: string, family: Family, sinceMs: number): Promise<Runner[]> {
  const { fleet, close } = connect(url);
  const deadline = performance.now() + REGISTER_MS;
  try {
    for (;;) {
      const { runners } = await fleet.listRunners({ pageSize: 1000 });
      // A store that persists knows runners of other days, too.
      const online = runners.filter(
        ({ presence, registeredAt, hostname: host }) =>
          presence === Runner_Presence.ONLINE &&
          host === hostname() &&
          registeredAt !== undefined &&
          timestampMs(registeredAt) >= sinceMs,
      );
      if (online.length >= family.runners.length || family.ending || performance.now() > deadline) return online;
      const dead = family.runners.find((runner) => runner.exitCode() !== undefined);
      if (dead !== undefined) throw new ChildEnded("runner", dead.exitCode() ?? EXIT.bug);
      await delay(50);
    }
  } finally {
    close();
  }
}

/** The coordinator and its runners, and how signals reach them. */
class Family {
  coordinator: Child | undefined;
  readonly runners: Child[] = [];
  /** True once somebody asked for the end. */
  ending = false;

  /**
   * TERM and HUP go on to the runners. INT is ignored, because a terminal's Ctrl+C has reached them already. When no runner
   * is left, all three go to the coordinator.
   */
  obeySignals(): () => void {
    const obey = (signal: NodeJS.Signals): void => {
      this.ending = true;
      const runners = this.runners.filter((runner) => runner.exitCode() === undefined);
      if (runners.length === 0) this.coordinator?.process.kill(signal);
      else if (signal !== "SIGINT") for (const runner of runners) runner.process.kill(signal);
    };
    const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
    for (const signal of signals) process.on(signal, obey);
    return () => {
      for (const signal of signals) process.off(signal, obey);
    };
  }

  /** Waits until all have ended, and answers the first exit code that is not 0. One that ends unasked ends the others. */
  async end(): Promise<number> {
    const { coordinator, runners } = this;
    if (coordinator === undefined) throw new Error("no coordinator was started");
    const runnersGone = Promise.all(runners.map((runner) => runner.exited));
    const anyGone = Promise.race(runners.map((runner) => runner.exited));
    await Promise.race([coordinator.exited, anyGone]);
    if (!this.ending || coordinator.exitCode() !== undefined) {
      await Promise.all(runners.map((runner) => endChild(runner, END_GRACE_MS)));
    }
    const codes = await runnersGone;
    const last = await endChild(coordinator, END_GRACE_MS);
    return [...codes, last].find((code) => code !== 0) ?? EXIT.ok;
  }

  /** Ends what was started, after a failed start. */
  async kill(): Promise<void> {
    await Promise.all(this.runners.map((runner) => endChild(runner, END_GRACE_MS)));
    if (this.coordinator !== undefined) await endChild(this.coordinator, END_GRACE_MS);
  }
}

/** What the banner tells of. */
export interface DevFacts {
  readonly url: string;
  /** Absolute path; undefined when nothing is kept. */
  readonly store: string | undefined;
  readonly runners: readonly Pick<Runner, "runnerId" | "executorProfile" | "maxConcurrentRuns" | "projectDir">[];
  /** Names of the executors of this package. */
  readonly installed: readonly string[];
}

/** The text that `ao dev` shows when everything runs. */
export function banner({ url, store, runners, installed }: DevFacts, paint: Paint): string {
  const target = url.replace(/^https?:\/\//, "");
  const profile = runners[0]?.executorProfile ?? DEFAULT_EXECUTOR;
  const body = `{"prompt":"Say hello","demands":{"executor_profile":"${profile}"}}`;
  const line = (name: string, text: string): string => `${paint("bold", name.padEnd(12))} ${text}`;
  const lines = [
    line("coordinator", `${paint("cyan", url)}  gRPC, gRPC-web and Connect on one port`),
    line("", `${url}/health  ${url}/ready  ${url}/metrics`),
    line("reflection", `grpcurl -plaintext ${target} list`),
    store === undefined
      ? line("store", "in memory: nothing survives the end of this command")
      : line("store", `${store}  runs and sessions persist; delete it to reset, --memory for none`),
    ...runners.map((runner) =>
      line(
        "runner",
        `${runner.runnerId}  ${runner.executorProfile}, up to ${runner.maxConcurrentRuns} runs in ${runner.projectDir}`,
      ),
    ),
    line("executors", `${installed.join(", ")}  (-x NAME starts a runner for each)`),
    line("try", `npx ao -c ${url} start hello --profile ${profile} --prompt "Say hello" --follow`),
    line("", `curl -s ${url}/agentrunner.v1.RunService/CreateRun -H 'content-type: application/json' -d '${body}'`),
    line("", `grpcurl -plaintext -d '${body}' ${target} agentrunner.v1.RunService/CreateRun`),
    line("stop", "Ctrl+C finishes what runs; a second one stops it"),
  ];
  return `\n${lines.join("\n")}\n\n`;
}
