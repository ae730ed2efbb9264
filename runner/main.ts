import "../lib/require-node.ts";
import { stat } from "node:fs/promises";
import { UsageError } from "../lib/config/config.ts";
import { endProcess } from "../lib/end-process.ts";
import { EXIT } from "../lib/exit-codes.ts";
import { asTyped } from "../lib/own-command.ts";
import { createLogger } from "../lib/log.ts";
import type { Log } from "../lib/log.ts";
import { fileErrorText, isFileError } from "../lib/config/file-problem.ts";
import { readFileIfThere } from "../lib/config/read-file.ts";
import { onEndSignals } from "../lib/signals.ts";
import { parseRunnerOptions } from "./config.ts";
import { executorOf } from "./execution/execute.ts";
import { reapBoot, startLeash } from "./execution/leash.ts";
import type { Leash } from "./execution/leash.ts";
import { McpPortError, openMcp } from "./execution/mcp-server.ts";
import { missingAgent } from "./settings/agents.ts";
import {
  executorListText,
  find,
  listJson,
  problemsOf,
  profileListText,
  resolveProfiled,
  resolveSettings,
} from "./settings/resolve-settings.ts";
import { startRunner } from "./runner.ts";
import type { RunningRunner } from "./runner.ts";
import type { Profiled } from "./settings/reload.ts";
import type { RunnerSettings } from "./settings/settings.ts";
import { StateRefusedError } from "./leases/state-dir.ts";

await endProcess(await main(process.argv.slice(2)));

/** argv → configuration → runner → signals → exit code. */
async function main(argv: readonly string[]): Promise<number> {
  try {
    const parsed = parseRunnerOptions(argv, process.env, readFileIfThere);
    if (parsed.type === "text") return print(parsed.text);
    const options = parsed.config;
    const findings = find(options);
    const lists = options.executorList || options.profileList;
    if (lists && options.output === "json") return print(listJson(options, findings));
    if (lists) for (const problem of problemsOf(findings)) complain(problem);
    if (lists) return print(options.executorList ? executorListText(findings) : profileListText(findings));
    const cwd = process.cwd();
    const settings = resolveSettings(options, findings, cwd);
    const level = options.verbose ? "debug" : "info";
    const log = createLogger({ name: "agent-runner", level, format: options.logFormat });
    for (const warning of parsed.warnings) log.warn(warning);
    const missing =
      options.executorPath === undefined ? missingAgent(findings.discovery, settings.executor) : undefined;
    if (missing !== undefined) log.warn(missing);
    // Read anew at each SIGHUP, with the flags of the start.
    const profiled = () => resolveProfiled(options, find(options), cwd);
    return await run(settings, profiled, log);
  } catch (error) {
    if (error instanceof UsageError) return complain(`error: ${asTyped(error.message, process.env)}`, EXIT.usage);
    if (error instanceof StateRefusedError || error instanceof McpPortError)
      return complain(`error: ${asTyped(error.message, process.env)}`, EXIT.refused);
    if (isFileError(error)) return complain(`error: ${fileErrorText(error)}`, EXIT.usage);
    return complain(`bug: ${error instanceof Error ? error.stack : String(error)}`, EXIT.bug);
  }
}

async function run(settings: RunnerSettings, profiled: () => Profiled, log: Log): Promise<number> {
  if (process.pid === 1) {
    log.warn(
      "as process 1 Node leaves what executors leave behind as zombies: start bin/agent-runner, or use an init (tini)",
    );
  }
  // The first asynchronous file call makes the threads of the pool, and Node aborts when it cannot: while there is room.
  await stat(process.execPath);
  const mcp = await openMcp(settings, log);
  let leash: Leash | undefined;
  let refresh: (profile: Profiled) => void = () => undefined;
  const runner = await startRunner(settings, {
    log,
    reap: reapBoot,
    executor: (bootId) => {
      leash = startLeash(bootId, { log });
      const deps = { leash, mcp, log };
      let execute = executorOf(settings, deps);
      refresh = ({ executor, tags }) => (execute = executorOf({ ...settings, executor, tags }, deps));
      return (assignment, hooks) => execute(assignment, hooks);
    },
  });
  const reload = (): void => {
    try {
      const now = profiled();
      refresh(now);
      runner.reload(now);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      log.error({ reason }, "the executor profiles cannot be used as they are now; the runner goes on as before");
    }
  };
  obeySignals(runner, reload, log);
  const exitCode = await runner.done;
  await mcp.close();
  await leash?.close();
  return exitCode;
}

/** The first signal drains, the second stops the runs, the third ends the process; the leash then ends what is left. */
function obeySignals(runner: RunningRunner, onReload: () => void, log: Log): void {
  const onEnd = (count: number, cause: string, exitCode: number): void => {
    if (count === 1) return runner.drain(cause);
    if (count === 2) return runner.stopRuns(`second ${cause}`);
    log.warn(`third ${cause}: ending now`);
    return process.exit(exitCode);
  };
  onEndSignals(onEnd, { onReload });
}

function print(text: string): number {
  process.stdout.write(text);
  return EXIT.ok;
}

function complain(text: string, exitCode: number = EXIT.ok): number {
  process.stderr.write(`${text}\n`);
  return exitCode;
}
