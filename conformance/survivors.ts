import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** A process that should not be there. */
export interface Survivor {
  readonly pid: number;
  /** Its command line. */
  readonly command: string;
}

/** Longest command line that is shown. */
const COMMAND_MAX = 100;

/** What a process is called; undefined when it has ended meanwhile. */
export function commandOf(pid: number): string | undefined {
  const line = readProc(pid, "cmdline");
  if (line === undefined || line === "") return undefined;
  const command = line.replaceAll("\0", " ").trim();
  return command.length > COMMAND_MAX ? `${command.slice(0, COMMAND_MAX)}…` : command;
}

/** The processes of these pids that are still there. */
export function survivors(pids: readonly number[]): Survivor[] {
  return pids.flatMap((pid) => {
    const command = commandOf(pid);
    return command === undefined ? [] : [{ pid, command }];
  });
}

/**
 * Pids of processes that work below a folder, whatever their environment says: one that has cleared it is found by nothing
 * else. Linux only; elsewhere none.
 */
export function processesBelow(folder: string): number[] {
  if (process.platform !== "linux") return [];
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid && isBelow(directoryOf(pid), folder));
}

function isBelow(path: string | undefined, folder: string): boolean {
  return path !== undefined && (path === folder || path.startsWith(`${folder}/`));
}

function directoryOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    // It ended, or belongs to somebody else.
    return undefined;
  }
}

function readProc(pid: number, file: "cmdline"): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    // It ended, or there is no /proc.
    return undefined;
  }
}

export function shownSurvivor({ pid, command }: Survivor): string {
  return `${command} (pid ${pid})`;
}
