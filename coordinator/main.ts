import "../lib/require-node.ts";
import { endProcess } from "../lib/end-process.ts";
import { EXIT } from "../lib/exit-codes.ts";
import { asTyped } from "../lib/own-command.ts";
import { UsageError } from "../lib/config/config.ts";
import { fileErrorText, isFileError } from "../lib/config/file-problem.ts";
import { readFileIfThere } from "../lib/config/read-file.ts";
import { onEndSignals } from "../lib/signals.ts";
import { createLogger } from "../lib/log.ts";
import { DatabaseUnusableError } from "../lib/sqlite.ts";
import { parseCoordinatorConfig } from "./config.ts";
import type { CoordinatorConfig } from "./config.ts";
import { agentsFolder, storeFolder } from "./folders.ts";
import { reload } from "./reload.ts";
import { startCoordinator } from "./start.ts";
import { ListenError } from "./http/server.ts";

/** Time that calls in flight get after the first signal. */
const STOP_GRACE_MS = 3000;

// The store holds prompts, and the key that proves run tokens: it is for its owner alone.
process.umask(0o077);
await endProcess(await main());

async function main(): Promise<number> {
  try {
    const parsed = parseCoordinatorConfig(process.argv.slice(2), process.env, readFileIfThere);
    if (parsed.type === "text") {
      process.stdout.write(parsed.text);
      return EXIT.ok;
    }
    const { config, sources } = parsed;
    if (!config.memory) storeFolder(config.store);
    agentsFolder(config.agentsDir, sources.agentsDir !== "default");
    return await serve(config);
  } catch (error) {
    return complain(error);
  }
}

async function serve(config: CoordinatorConfig): Promise<number> {
  const log = createLogger({ name: "agent-coordinator", level: config.logLevel, format: config.logFormat });
  const running = await startCoordinator(config, log);
  const { url, listensOn, store } = running;
  const here = url === listensOn ? "" : `, from here ${url}`;
  const kept = store === undefined ? "nothing survives (--memory)" : `store ${store}`;
  log.info({ url }, `Coordinator listens on ${listensOn}${here}; ${kept}`);
  await new Promise<void>((resolve) => {
    onEndSignals(
      (count, cause) => {
        if (count > 1) process.exit(EXIT.failed);
        log.info({ signal: cause }, "ending; runners keep their runs and come back");
        resolve();
      },
      { onReload: () => void reload(running, config, () => readConfig(config), log) },
    );
  });
  await running.stop(STOP_GRACE_MS);
  log.info("ended");
  return EXIT.ok;
}

/** What the process would be started with now; `--help` and the like, which it was not started with, are no settings. */
function readConfig(config: CoordinatorConfig): CoordinatorConfig {
  const parsed = parseCoordinatorConfig(process.argv.slice(2), process.env, readFileIfThere);
  return parsed.type === "config" ? parsed.config : config;
}

function complain(error: unknown): number {
  if (error instanceof UsageError) {
    process.stderr.write(`error: ${asTyped(error.message, process.env)}\n`);
    return EXIT.usage;
  }
  if (error instanceof DatabaseUnusableError || error instanceof ListenError) {
    process.stderr.write(`error: ${asTyped(error.message, process.env)}\n`);
    return EXIT.refused;
  }
  if (isFileError(error)) {
    process.stderr.write(`error: ${fileErrorText(error)}\n`);
    return EXIT.usage;
  }
  process.stderr.write(`bug: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return EXIT.bug;
}
