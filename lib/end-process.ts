import { setTimeout as delay } from "node:timers/promises";

/** Longest wait for a reader of stderr, which is talk: what nobody reads must not keep a process from ending. */
const TALK_MS = 1_000;

/** Resolves when everything that was written is out of this process, or nobody reads it any more. */
export function drained(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    stream.once("error", () => resolve());
    stream.write("", () => resolve());
  });
}

/** Ends the process when its data are out. A pipe takes 64 KiB at a time: what its reader has not taken would be lost. */
export async function endProcess(exitCode: number): Promise<never> {
  await Promise.all([drained(process.stdout), Promise.race([drained(process.stderr), delay(TALK_MS)])]);
  return process.exit(exitCode);
}
