import { accessSync, closeSync, constants, openSync, readSync, statSync } from "node:fs";
import type { Stats } from "node:fs";
import { fileProblem } from "../../lib/config/file-problem.ts";
import { isShortage } from "../execution/shortage.ts";

/** Bytes of a file that say how it is started; as many as Linux reads. */
const HEAD_BYTES = 256;

/** ELF; Mach-O of 64 bits, and with several architectures. */
const BINARY_MAGIC = ["7f454c46", "cffaedfe", "cafebabe"];

/**
 * Why the file cannot be started as an executor, with the path and the remedy; undefined when it can. A script without a
 * `#!` line is refused: C libraries would hand it to /bin/sh without a warning, whatever it is written in. Throws what
 * says that the machine is short of something.
 */
export function executableProblem(path: string): string | undefined {
  let status: Stats | undefined;
  try {
    status = statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    if (isShortage(error)) throw error;
    return `executor ${path} cannot be used: ${fileProblem(error, path)}`;
  }
  if (status === undefined) return `executor ${path} does not exist; check the path`;
  if (!status.isFile()) return `executor ${path} is not a file; name the program itself`;
  if (!isExecutable(path)) return `executor ${path} is not executable; run: chmod +x ${path}`;
  const head = readHead(path);
  if (head === undefined || BINARY_MAGIC.includes(head.toString("hex", 0, 4))) return undefined;
  const script = /^#![ \t]*([^ \t\r\n]*)([^\n]*)/.exec(head.toString("latin1"));
  if (script === null) {
    return `executor ${path} has no interpreter; let its first line be one, such as: #!/usr/bin/env bash`;
  }
  const [, interpreter = "", rest = ""] = script;
  if (`${interpreter}${rest}`.endsWith("\r")) {
    return `executor ${path} has Windows line ends, so that its interpreter is not found; run: sed -i 's/\\r$//' ${path}`;
  }
  if (interpreter.startsWith("/") && isExecutable(interpreter)) return undefined;
  return `executor ${path} needs the interpreter "${interpreter}", which is not here; install it or change the first line`;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch (error) {
    if (isShortage(error)) throw error;
    return false;
  }
}

/** The first bytes; undefined for a program that may be executed but not read, which is allowed. */
function readHead(path: string): Buffer | undefined {
  let file: number | undefined;
  try {
    file = openSync(path, "r");
    const head = Buffer.alloc(HEAD_BYTES);
    return head.subarray(0, readSync(file, head));
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
