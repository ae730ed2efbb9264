import { statSync } from "node:fs";
import type { Stats } from "node:fs";

/** What stands at a path is no file, and would keep its reader waiting, or never end. Stands after the name of the path. */
export class NotAFileError extends Error {
  override readonly name = "NotAFileError";
}

/** Open already: what a shell makes of `<(command)`, and the standard input. */
const DESCRIPTOR = /^\/(?:dev\/(?:fd\/\d+|stdin)|proc\/(?:self|\d+)\/fd\/\d+)$/;

/** What stands there when it is neither a file nor a folder: "a named pipe". */
export function kindOf(status: Stats): string | undefined {
  if (status.isFIFO()) return "a named pipe";
  if (status.isSocket()) return "a socket";
  if (status.isCharacterDevice() || status.isBlockDevice()) return "a device";
  return undefined;
}

/**
 * Looks at what is to be read as a whole. A folder, and what is not there, is left to the reader, which has words for it;
 * /dev/null is an empty file to everybody.
 *
 * @throws NotAFileError, and Node's error for what cannot be looked at.
 */
export function mustBeReadable(path: string): void {
  if (path === "/dev/null" || DESCRIPTOR.test(path)) return;
  const status = statSync(path, { throwIfNoEntry: false });
  const kind = status && kindOf(status);
  if (kind !== undefined) throw new NotAFileError(`it is ${kind}, not a file`);
}
