import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { InvalidArgumentError, Option } from "commander";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Runner } from "../../gen/agentrunner/v1/runner_pb.ts";
import { Runner_Presence } from "../../gen/agentrunner/v1/runner_pb.ts";
import { hostPort } from "../../lib/config/kinds.ts";
import type { HostPort } from "../../lib/config/kinds.ts";
import { EXIT } from "../../lib/exit-codes.ts";
import { connect } from "../../client/connect.ts";
import { ChildEnded, answers, claimPort, startChild, untilHealthy } from "../children.ts";
import { pageWidth } from "../cli.ts";
import type { Cli, Verbs } from "../cli.ts";
import { wrap } from "../../lib/width.ts";
import { CliError, usage } from "../errors.ts";
import type { ExecutorList } from "../programs.ts";
import { listExecutors, settingsOf, storeOf } from "../programs.ts";
import type { Paint } from "../text/format.ts";
import { collect, count } from "../options.ts";
import { ownCommand } from "../../lib/own-command.ts";
import { ProcessGroup } from "../process-group.ts";

interface DevOptions {
  readonly executor?: string[];
  readonly profile?: string[];
  readonly executorsDir?: string[];
  readonly listen: HostPort;
  readonly store?: string;
  readonly memory?: true;
  readonly projectDir?: string;
  readonly maxRuns?: number;
}

const DEFAULT_EXECUTOR = "test-executor";

/** Longest wait for the runners before the banner is shown without them. */
const REGISTER_MS = 10_000;

/** `ao dev`: a coordinator and runners, as child processes, until Ctrl+C. */
export function addDev(ao: Command, verbs: Verbs): void {
  ao.command("dev")
    .description("start a coordinator and a runner here, until Ctrl+C")
    .argument("[runner-args...]", "after --: further flags of every runner")
    .option(
      "-x, --executor <name>",
      "executor or agent; repeat for a runner each (default: the agent that is here)",
      collect,
    )
    .option("--profile <name>", "executor profile; repeat for a runner each", collect)
    .option("--executors-dir <dir>", "folder with more executors; repeat for more", collect)
    .addOption(
      new Option("--listen <host:port>", "address of the coordinator; port 0 takes a free one")
        .argParser(address)
        .default({ host: "127.0.0.1", port: 8765 }, "127.0.0.1:8765"),
    )
    .option("--store <file>", "file that keeps everything (default: as the coordinator is configured)")
    .option("--memory", "keep everything in memory; nothing survives")
    .option("--project-dir <dir>", "directory that runs work in (default: the current one)")
    .option("--max-runs <n>", "most runs at a time, of each runner", count)
    .addHelpText(
      "after",
      "\nExamples:\n  ao dev -x my-agent --executors-dir ../executors\n  ao dev -x test-executor --memory -- --tag docker",
    )
    .action(verbs.action((cli, runnerArgs: string[], options: DevOptions) => dev(cli, runnerArgs, options)));
}

function address(text: string): HostPort {
  const parsed = hostPort.parse([text]);
  if (parsed === undefined) throw new InvalidArgumentError("it must be HOST:PORT such as 127.0.0.1:8765.");
  return parsed;
}

async function dev(cli: Cli, runnerArgs: readonly string[], options: DevOptions): Promise<number> {
  if (options.memory && options.store !== undefined) throw usage("--memory and --store exclude each other");
  const dirs = (options.executorsDir ?? []).flatMap((dir) => ["--executors-dir", resolve(dir)]);
  const [list, store] = await Promise.all([listExecutors([...dirs, ...runnerArgs]), storeFor(options)]);
  const wanted = wantedRunners(options, list);
  checkRepeated(wanted);
  for (const { flag, name } of wanted) if (flag === "--executor") checkExecutor(name, list);
  const listen = authority(options.listen.host, await freePort(options.listen));
  const url = `http://${listen}`;

  const group = new ProcessGroup();
  const undo = group.obeySignals();
  try {
    // In a group of its own, so that it outlives the drain that a Ctrl+C begins in the runners.
    const flags = ["--listen", listen, ...(store === undefined ? ["--memory"] : ["--store", store])];
    group.coordinator = startChild("coordinator", flags, { detached: true });
    await untilHealthy(url, group.coordinator);
    const sinceMs = Date.now();
    for (const one of wanted) {
      const flags = [...runnerFlags(url, one, options), ...dirs, ...runnerArgs];
      group.runners.push(startChild("runner", flags, { servedBy: group.coordinator }));
    }
    const runners = await registered(url, group, sinceMs);
    const installed = list.executors
      .filter(({ agent }) => agent === undefined || agent.program !== undefined)
      .map(({ name }) => name);
    if (!group.ending)
      cli.screen.say(
        banner(
          { url, store, runners, installed, command: ownCommand(cli.io.env) },
          cli.paintTalk,
          pageWidth(cli.io, cli.io.stderr),
        ),
      );
    return await group.end();
  } catch (error) {
    await group.kill();
    if (error instanceof ChildEnded) return error.exitCode;
    throw error;
  } finally {
    undo();
  }
}

/** What one runner is started for. */
interface WantedRunner {
  readonly flag: "--executor" | "--profile";
  readonly name: string;
}

/** Without a wish it is the first agent that is installed and logged in; without one, what needs none. */
function wantedRunners({ executor, profile }: DevOptions, { executors: known }: ExecutorList): WantedRunner[] {
  const ready = known.find(({ agent }) => agent?.ready === true)?.name;
  const executors = executor ?? (profile === undefined ? [ready ?? DEFAULT_EXECUTOR] : []);
  return [
    ...executors.map((name) => ({ flag: "--executor", name }) as const),
    ...(profile ?? []).map((name) => ({ flag: "--profile", name }) as const),
  ];
}

function runnerFlags(url: string, { flag, name }: WantedRunner, options: DevOptions): string[] {
  const flags = ["--coordinator-url", url, flag, name];
  if (options.projectDir !== undefined) flags.push("--project-dir", options.projectDir);
  if (options.maxRuns !== undefined) flags.push("--max-runs", String(options.maxRuns));
  return flags;
}

/** Absolute path of the file that keeps everything; undefined when nothing is kept. */
async function storeFor({ memory, store }: DevOptions): Promise<string | undefined> {
  if (memory) return undefined;
  return store === undefined ? storeOf(await settingsOf("coordinator")) : resolve(store);
}

function checkRepeated(wanted: readonly WantedRunner[]): void {
  const repeated = wanted.find((one, i) => wanted.findIndex((other) => other.name === one.name) !== i);
  if (repeated !== undefined)
    throw usage(`${repeated.name} is given twice`, "--max-runs N lets one runner take more runs");
}

function checkExecutor(name: string, { executors, problems }: ExecutorList): void {
  if (executors.some((executor) => executor.name === name)) return;
  const problem = problems.find((problem) => problem.name === name);
  const names = executors.map((executor) => executor.name).join(", ") || "none";
  const text = problem?.message ?? `no executor is named "${name}"; found: ${names}`;
  throw usage(
    text,
    "--executors-dir DIR adds a folder of executors; `agent-runner --executor-list` shows what there is",
  );
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
    const other = `take a free port: \`ao dev --listen ${authority(host, 0)}\``;
    throw new CliError(
      EXIT.refused,
      `port ${port} is in use${ours ? " by a coordinator" : ""}`,
      ours ? `use that one (\`ao -c ${url} runners\`), or ${other}` : other,
    );
  }
}

/** The runners once every one is online; those that are after a while, so that a slow one does not hide the banner. */
async function registered(url: string, group: ProcessGroup, sinceMs: number): Promise<Runner[]> {
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
      if (online.length >= group.runners.length || group.ending || performance.now() > deadline) return online;
      const dead = group.runners.find((runner) => runner.exitCode() !== undefined);
      if (dead !== undefined) throw new ChildEnded("runner", dead.exitCode() ?? EXIT.bug);
      await delay(50);
    }
  } finally {
    close();
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
  /** How `ao` is called here. */
  readonly command: string;
}

/** The text that `ao dev` shows when everything runs, on lines of so many columns; URLs, paths and commands are never broken. */
export function banner({ url, store, runners, installed, command }: DevFacts, paint: Paint, columns = 80): string {
  const target = url.replace(/^https?:\/\//, "");
  const profile = runners[0]?.executorProfile ?? DEFAULT_EXECUTOR;
  const indent = " ".repeat(13);
  const line = (name: string, text: string): string =>
    wrap(`${paint("bold", name.padEnd(12))} ${text}`, columns, indent);
  /** A command over several lines, as a shell takes them. */
  const shell = (...parts: string[]): string => parts.join(` \\\n${indent}  `);
  const body = `'{"prompt":"Say hello",\n${indent}  "demands":{"executor_profile":"${profile}"}}'`;
  const lines = [
    line("coordinator", `${paint("cyan", url)}  gRPC, gRPC-web and Connect on one port`),
    line("", `${url}/health ${url}/ready ${url}/metrics`),
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
    ...(profile === DEFAULT_EXECUTOR
      ? [line("agents", `${profile} echoes its prompt; ${command} executors ls tells how to install a real agent`)]
      : []),
    `${line("try", "")}${shell(`${command} -c ${url} start hello`, `--profile ${profile} --prompt "Say hello" --follow`)}`,
    indent +
      shell(`curl -s ${url}/agentrunner.v1.RunService/CreateRun`, `-H 'content-type: application/json' -d ${body}`),
    indent + shell(`grpcurl -plaintext -d ${body}`, `${target} agentrunner.v1.RunService/CreateRun`),
    line("stop", "Ctrl+C finishes what runs; a second one stops it"),
  ];
  return `\n${lines.join("\n")}\n`;
}
