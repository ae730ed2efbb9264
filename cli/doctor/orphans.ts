import { existsSync, readFileSync, readdirSync } from "node:fs";
import { BOOT_VARIABLE } from "../../lib/boot-variable.ts";

/** A process of an executor whose runner is gone. */
export interface Orphan {
  readonly pid: number;
  readonly bootId: string;
  readonly command: string;
}

/**
 * Processes that carry a runner's marker although neither that runner's leash runs here nor a coordinator knows the boot
 * as alive. Linux only, elsewhere undefined; other users' processes are seen only by root.
 */
export function findOrphans(liveBoots: ReadonlySet<string>, proc = "/proc"): Orphan[] | undefined {
  if (!existsSync(`${proc}/self/stat`)) return undefined;
  const pids = readdirSync(proc).filter((name) => /^\d+$/.test(name));
  const marked: Orphan[] = [];
  const leashed = new Set<string>();
  for (const pid of pids) {
    const command = readEntry(`${proc}/${pid}/cmdline`);
    // The leash has the marker as its argument, and no environment.
    const leash = entries(command).find((argument) => argument.startsWith(`${BOOT_VARIABLE}=`));
    if (leash !== undefined) leashed.add(leash.slice(BOOT_VARIABLE.length + 1));
    const marker = entries(readEntry(`${proc}/${pid}/environ`)).find((entry) => entry.startsWith(`${BOOT_VARIABLE}=`));
    if (marker === undefined || Number(pid) === process.pid) continue;
    const bootId = marker.slice(BOOT_VARIABLE.length + 1);
    marked.push({ pid: Number(pid), bootId, command: entries(command).join(" ") });
  }
  return marked.filter(({ bootId }) => !leashed.has(bootId) && !liveBoots.has(bootId));
}

function entries(text: string): string[] {
  return text.split("\0").filter((entry) => entry !== "");
}

function readEntry(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // The process ended meanwhile, or belongs to somebody else.
    return "";
  }
}
