import { isDeepStrictEqual } from "node:util";
import type { Log } from "../lib/log.ts";
import { COORDINATOR_TABLE } from "./config.ts";
import type { CoordinatorConfig } from "./config.ts";
import type { RunningCoordinator } from "./start.ts";

/** Most broken blueprints that one line names. */
const MAX_NAMED = 20;

/** Settings, by flag, that have another value now than the process was started with. */
export function changedSettings(before: CoordinatorConfig, now: CoordinatorConfig): string[] {
  const keys = Object.keys(COORDINATOR_TABLE) as (keyof CoordinatorConfig)[];
  return keys.filter((key) => !isDeepStrictEqual(before[key], now[key])).map((key) => COORDINATOR_TABLE[key].flag);
}

/**
 * What SIGHUP asks for: the certificate and its key are read again, the blueprints are looked through, and what only a
 * restart changes is named. Whatever cannot be read, the coordinator goes on with what it has.
 */
export async function reload(
  running: RunningCoordinator,
  config: CoordinatorConfig,
  readConfig: () => CoordinatorConfig,
  log: Log,
): Promise<void> {
  try {
    const validTo = running.reloadTls();
    if (validTo !== undefined)
      log.info({ valid_to: validTo }, "the certificate was read again; new connections get it");
  } catch (error) {
    log.error({ reason: textOf(error) }, "the certificate cannot be used; the one before it stays");
  }
  try {
    const { usable, broken } = await running.lookAtBlueprints();
    if (broken.length > 0) log.warn({ usable, broken: broken.slice(0, MAX_NAMED) }, "blueprints are broken");
    else log.info({ usable }, "the blueprints were looked through; they are read at each use");
  } catch (error) {
    log.error({ reason: textOf(error) }, "the blueprints cannot be read");
  }
  try {
    const settings = changedSettings(config, readConfig());
    const text = "flags, variables and the configuration file count from the next start on";
    if (settings.length > 0) log.warn({ settings }, `${text}; these have changed since this one`);
    else log.info(`${text}; nothing in them has changed`);
  } catch (error) {
    log.error({ reason: textOf(error) }, "with this configuration the coordinator would not start again");
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
