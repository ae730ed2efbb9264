import { constants } from "node:fs";
import { open, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, join, sep } from "node:path";
import { BlueprintError, DISABLED_FILE, FILES } from "../core/blueprints/blueprint.ts";
import type { BlueprintFiles } from "../core/blueprints/blueprint.ts";
import { NotText, utf8Text } from "../../lib/text.ts";

/** Largest file of a blueprint: a blueprint of three such files fits a message. */
export const FILE_MAX_BYTES = 512 * 1024;

/**
 * Reads the files of the blueprint `name` below `root`. A link may lead anywhere inside `root` and nowhere else.
 * @throws BlueprintError for what is not read, and Node's error for what cannot be.
 */
export async function readFiles(root: string, name: string): Promise<BlueprintFiles> {
  const realRoot = await realpath(root);
  const dir = await realpath(join(root, name));
  mustBeInside(realRoot, dir, "the directory");
  const read = (file: string): Promise<string | undefined> => readInside(realRoot, join(dir, file));
  const [agent, systemPrompt, mcp, marker] = await Promise.all([
    read(FILES.agent),
    read(FILES.systemPrompt),
    read(FILES.mcp),
    orUndefined(stat(join(dir, DISABLED_FILE))),
  ]);
  return { agent, systemPrompt, mcp, disabled: marker !== undefined };
}

/** True for a folder that holds nothing of a blueprint, as node_modules: whoever put it there meant none. */
export function isForeign({ agent, systemPrompt, mcp, disabled }: BlueprintFiles): boolean {
  return agent === undefined && systemPrompt === undefined && mcp === undefined && !disabled;
}

async function readInside(root: string, path: string): Promise<string | undefined> {
  const file = basename(path);
  const real = await orUndefined(realpath(path));
  if (real === undefined) return undefined;
  mustBeInside(root, real, file);
  // A pipe would keep its reader waiting.
  const handle = await open(real, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const status = await handle.stat();
    if (!status.isFile()) throw new BlueprintError(`${file} is not a file`);
    if (status.size > FILE_MAX_BYTES) {
      throw new BlueprintError(`${file} has ${status.size} bytes; at most ${FILE_MAX_BYTES} are read`);
    }
    return utf8Text(await handle.readFile());
  } catch (error) {
    if (error instanceof NotText) throw new BlueprintError(`${file} ${error.message}`);
    throw error;
  } finally {
    await handle.close();
  }
}

function mustBeInside(root: string, real: string, what: string): void {
  if (!real.startsWith(`${root}${sep}`))
    throw new BlueprintError(
      `${what} is a link that leads out of ${root}; put a copy there, or name the other place by --agents-dir`,
    );
}

async function orUndefined<T>(found: Promise<T>): Promise<T | undefined> {
  try {
    return await found;
  } catch (error) {
    if (isCode(error, "ENOENT", "ENOTDIR")) return undefined;
    throw error;
  }
}

/**
 * Writes what differs into `dir`, each file in one step. agent.json is written after the files that can hold parts of
 * it: after a crash in between, a part is there twice rather than not at all.
 */
export async function writeFiles(dir: string, before: BlueprintFiles, after: BlueprintFiles): Promise<void> {
  const marker = ({ disabled }: BlueprintFiles): string | undefined => (disabled ? "" : undefined);
  await replace(join(dir, FILES.systemPrompt), before.systemPrompt, after.systemPrompt);
  await replace(join(dir, FILES.mcp), before.mcp, after.mcp);
  await replace(join(dir, FILES.agent), before.agent, after.agent);
  await replace(join(dir, DISABLED_FILE), marker(before), marker(after));
}

async function replace(path: string, before: string | undefined, after: string | undefined): Promise<void> {
  if (after === before) return;
  if (after === undefined) return rm(path, { force: true });
  const unfinished = `${path}.new`;
  const handle = await open(unfinished, "w");
  try {
    await handle.writeFile(after);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(unfinished, path);
}

export function isCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}
