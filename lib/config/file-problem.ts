import { lstatSync } from "node:fs";
import { userInfo } from "node:os";
import { dirname, resolve } from "node:path";

/** What the codes of the file system mean to somebody who named a path. */
const BY_CODE: Readonly<Record<string, string>> = {
  ENOENT: "it does not exist",
  EISDIR: "it is a directory, not a file",
  ENOTDIR: "a part of the path is a file, not a directory",
  ELOOP: "it leads through a loop of symbolic links",
  ENAMETOOLONG: "its name is longer than the file system allows",
  EROFS: "the file system is read-only",
  ENOSPC: "the disk is full",
  EDQUOT: "the quota of the disk is used up",
  EMFILE: "this process has too many files open",
  ENFILE: "this machine has too many files open",
  EIO: "the disk cannot be read or written",
};

const DENIED: ReadonlySet<string> = new Set(["EACCES", "EPERM"]);

/** An error that the system reports of a file. */
interface FileError extends Error {
  readonly code: string;
  readonly syscall: string;
  readonly path?: string;
}

/** Calls whose errors are of files, and not of sockets or processes. `read` is both, and its codes tell it apart. */
const FILE_CALLS =
  /^(access|chmod|close|fstat|fsync|ftruncate|lstat|mkdir|mkdtemp|open|read|readlink|realpath|rename|rm|rmdir|scandir|stat|statfs|unlink|uv_cwd|write)$/;

/** Whether the system reports this of a file: somebody's path, rights or disk, and no bug. */
export function isFileError(error: unknown): error is FileError {
  if (!(error instanceof Error) || !("code" in error) || !("syscall" in error)) return false;
  const { code, syscall } = error;
  if (typeof code !== "string" || typeof syscall !== "string") return false;
  return FILE_CALLS.test(syscall) && (code in BY_CODE || DENIED.has(code));
}

/** What is wrong with a path, to stand after its name: "it does not exist (ENOENT)". */
export function fileProblem(error: unknown, path: string): string {
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  if (DENIED.has(code)) return `${denied(path)} (${code})`;
  const known = BY_CODE[code];
  return known === undefined ? error.message : `${known} (${code})`;
}

/** The words of a file error that nobody expected where it came from, with the path when the system named one. */
export function fileErrorText(error: FileError): string {
  if (error.syscall === "uv_cwd") return "the current directory was removed; start in another one";
  return error.path === undefined ? error.message : `${error.path}: ${fileProblem(error, error.path)}`;
}

/** Who is kept out, and by whose file or directory: the last of the path that can be looked at. */
function denied(path: string): string {
  const user = whoami();
  for (let place = resolve(path); ; place = dirname(place)) {
    try {
      const { uid } = lstatSync(place);
      return `user ${user} may not use it: ${place} belongs to user ${uid}`;
    } catch {
      // It is hidden in a directory that may not be entered: that one is to blame.
      if (dirname(place) === place) return `user ${user} may not use it`;
    }
  }
}

function whoami(): string {
  try {
    return `${userInfo().username} (${process.getuid?.() ?? ""})`;
  } catch {
    // A container's arbitrary user has no name.
    return String(process.getuid?.() ?? "");
  }
}
