import { randomBytes } from "node:crypto";
import { chmodSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";

const ENDING = ".agent-config.tmp";

/** A file that is written beside its place and not yet moved there. */
export interface AsideFile {
  /** Where it goes. */
  readonly path: string;
  readonly aside: string;
}

/** Writes beside the place. Whoever reads the place sees the old file until `moveIntoPlace`, and then all of the new one. */
export function writeAside(path: string, content: string, mode: number): AsideFile {
  const aside = join(dirname(path), `.${basename(path)}.${process.pid}.${randomBytes(4).toString("hex")}${ENDING}`);
  try {
    writeFileSync(aside, content, { flag: "wx", mode });
    // The mode of a new file is cut by the umask.
    chmodSync(aside, mode);
  } catch (error) {
    rmSync(aside, { force: true });
    throw error;
  }
  return { path, aside };
}

export function moveIntoPlace({ path, aside }: AsideFile): void {
  renameSync(aside, path);
}

export function giveUp({ aside }: AsideFile): void {
  rmSync(aside, { force: true });
}

/** Removes what writers left that were killed. For somebody who knows that nobody writes into the folder now. */
export function removeLeftovers(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (name.startsWith(".") && name.endsWith(ENDING)) rmSync(join(folder, name), { force: true });
  }
}
