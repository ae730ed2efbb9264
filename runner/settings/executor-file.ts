import { readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseDurationMs } from "../../lib/config/config.ts";
import { fileProblem } from "../../lib/config/file-problem.ts";
import { TIMER_MAX_MS } from "../../lib/config/kinds.ts";
import { readJson } from "../../lib/protocol/json-text.ts";
import { utf8Text } from "../../lib/text.ts";
import { ExecutorError } from "./discovery.ts";
import type { IdleTimeout } from "./settings.ts";

/** Beside an executor's program: what a runner should know of it. */
const FILE = "executor.json";

const MAX_BYTES = 64 * 1024;

/** What the limit of a profile or an executor must be, in words. */
export const IDLE_TIMEOUT_IS = "a duration such as 30s, 10m or 2h, at most 24 days; or 0 for no limit";

/** Milliseconds of an idle timeout as it is written; undefined when it is none. */
export function idleTimeoutMs(value: unknown): number | undefined {
  const ms = typeof value === "string" ? parseDurationMs(value) : undefined;
  return ms === undefined || ms > TIMER_MAX_MS ? undefined : ms;
}

/**
 * The idle timeout that the executor of this program has unless its profile or the run says otherwise. An agent that waits
 * for a model for ever would keep a slot for ever; an executor that computes may well be silent.
 *
 * @throws ExecutorError when the file beside the program cannot be used.
 */
export function idleTimeoutOf(command: string): IdleTimeout | undefined {
  const file = join(dirname(command), FILE);
  const value = fieldsOf(file)["idle_timeout"];
  if (value === undefined) return undefined;
  const ms = idleTimeoutMs(value);
  if (ms === undefined) throw new ExecutorError(`${file}: "idle_timeout" must be ${IDLE_TIMEOUT_IS}`);
  return { ms, of: { type: "executor", file } };
}

/** The fields of the file; none when there is no file. Those that are not known are for newer runners. */
function fieldsOf(file: string): Readonly<Record<string, unknown>> {
  try {
    const status = statSync(file, { throwIfNoEntry: false });
    if (status === undefined) return {};
    if (!status.isFile() || status.size > MAX_BYTES)
      throw new ExecutorError(`must be a file of at most ${MAX_BYTES} bytes`);
    const json: unknown = readJson(utf8Text(readFileSync(file)));
    if (typeof json === "object" && json !== null && !Array.isArray(json)) return json as Record<string, unknown>;
    throw new ExecutorError("must be a JSON object");
  } catch (error) {
    throw new ExecutorError(`${file}: ${fileProblem(error, file)}`);
  }
}
