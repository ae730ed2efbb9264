import { spawnSync } from "node:child_process";
import type { Ended } from "./executors-support.ts";
import { start } from "./executors-support.ts";
import { inRepository } from "../support/paths.ts";

export const LIB = inRepository("lib");
export const FIXTURES = inRepository("test/fixtures/python");

/** Why tests that need a program are skipped, said on stderr too; undefined when it is installed. */
export function missing(program: string): string | undefined {
  if (spawnSync(program, ["--version"]).status === 0) return undefined;
  const reason = `${program} is not installed`;
  process.stderr.write(`some tests are skipped: ${reason}\n`);
  return reason;
}

/** Runs Python with our lib/ on its path, and leaves no compiled files there. */
export function python(args: string[], stdin = "", env: Record<string, string> = {}): Promise<Ended> {
  return start(["python3", ...args], stdin, { env: { PYTHONPATH: LIB, PYTHONDONTWRITEBYTECODE: "1", ...env } }).ended;
}
