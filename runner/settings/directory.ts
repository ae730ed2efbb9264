import { accessSync, constants, statSync } from "node:fs";
import { inspect } from "node:util";
import { isShortage } from "../execution/shortage.ts";

/** Characters of a path that a message shows: the reason has to be seen beside it. */
const MAX_SHOWN = 300;

/** Why a directory cannot be worked in. */
export interface DirectoryProblem {
  /** What is wrong with it, after its name. */
  readonly what: string;
  /** There is no such directory; else it is there, or may be, and is of no use. */
  readonly missing: boolean;
  /** True while the path and the machine stay what they are: to look again does not help. */
  readonly permanent: boolean;
  /** The machine is short of something, and the directory may be fine. */
  readonly shortage: boolean;
}

/** What the codes of the system mean for somebody who named the directory. */
const BY_CODE: Readonly<Record<string, string>> = {
  EACCES: "may not be entered by the runner's user (EACCES)",
  EPERM: "may not be entered by the runner's user (EPERM)",
  ENOTDIR: "does not exist: a part of the path is a file (ENOTDIR)",
  ELOOP: "leads through a loop of symbolic links (ELOOP)",
  ENAMETOOLONG: "has a name that is longer than the file system allows (ENAMETOOLONG)",
  ERR_INVALID_ARG_VALUE: "is no path: it holds a NUL character",
};

const MISSING = { missing: true, permanent: true, shortage: false };

/** Why nothing can be started in the directory; undefined when something can. Never throws. */
export function directoryProblem(path: string): DirectoryProblem | undefined {
  try {
    const status = statSync(path, { throwIfNoEntry: false });
    if (status === undefined) return { ...MISSING, what: "does not exist" };
    if (!status.isDirectory()) return { ...MISSING, what: "is not a directory" };
    accessSync(path, constants.X_OK);
    return undefined;
  } catch (error) {
    const { code = "", message } = error as NodeJS.ErrnoException;
    const known = BY_CODE[code];
    const what = known ?? `cannot be looked at: ${message}`;
    return { what, missing: false, permanent: known !== undefined, shortage: isShortage(error) };
  }
}

/** A path for a message: what cannot be printed is escaped, what is long is cut. */
export function shownPath(path: string): string {
  const cut = path.length > MAX_SHOWN ? `${path.slice(0, MAX_SHOWN)}…` : path;
  return /\p{Cc}/u.test(cut) ? inspect(cut) : cut;
}
