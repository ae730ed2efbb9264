import { existsSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runnerId as runnerIdOf } from "../../lib/ids.ts";
import type { RunnerIdentity } from "../../lib/ids.ts";
import { machineId } from "./place.ts";

/** Beside `state.db`: whose state it is. In a file of its own, which can be read while another process has the lock. */
const FILE = "identity.json";

/** Most state directories that are looked at, and longest file that is read. */
const MAX_DIRS = 1_000;
const MAX_BYTES = 64 * 1024;

type Identity = Readonly<Record<"hostname" | "project_dir" | "executor_profile" | "name" | "machine_id", string>>;

function identityOf({ hostname, projectDir, executorProfile, name }: RunnerIdentity): Identity {
  return { hostname, project_dir: projectDir, executor_profile: executorProfile, name, machine_id: machineId() };
}

/** Says in a runner's state directory whose it is. @throws when it cannot be written. */
export function writeIdentity(base: string, runnerId: string, identity: RunnerIdentity): void {
  const file = join(base, runnerId, FILE);
  writeFileSync(`${file}.new`, `${JSON.stringify(identityOf(identity), undefined, 2)}\n`, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** The state is of a runner that is not looked for under another host name. */
export function removeIdentity(base: string, runnerId: string): void {
  rmSync(join(base, runnerId, FILE), { force: true });
}

/**
 * Ids under which a runner may have been known, the best first. One has the id that follows from what it is. When there is
 * no state under that id, and the host name may have changed, it is also who worked on this machine in the same directory,
 * with the same profile and name; the one that was started last comes first.
 */
export function knownIds(base: string, identity: RunnerIdentity, hostnameMayChange: boolean): string[] {
  const derived = runnerIdOf(identity);
  if (!hostnameMayChange || existsSync(join(base, derived, "state.db"))) return [derived];
  const own = identityOf(identity);
  const found = stateDirs(base).flatMap((runnerId) => {
    const known = readIdentity(join(base, runnerId, FILE));
    return known !== undefined && isSameRunner(known.identity, own) ? [{ runnerId, startedMs: known.startedMs }] : [];
  });
  return [...found.toSorted((a, b) => b.startedMs - a.startedMs).map(({ runnerId }) => runnerId), derived];
}

function isSameRunner(one: Partial<Identity>, other: Identity): boolean {
  return (["project_dir", "executor_profile", "name", "machine_id"] as const).every((key) => one[key] === other[key]);
}

function stateDirs(base: string): string[] {
  try {
    return readdirSync(base)
      .filter((name) => /^lnch_[0-9a-f]{12}$/.test(name))
      .slice(0, MAX_DIRS);
  } catch {
    // No base yet, or one that cannot be used, which opening the state says.
    return [];
  }
}

function readIdentity(file: string): { identity: Partial<Identity>; startedMs: number } | undefined {
  try {
    const status = statSync(file);
    const { size, mtimeMs } = status;
    if (!status.isFile() || size > MAX_BYTES) return undefined;
    const json: unknown = JSON.parse(readFileSync(file, "utf8"));
    return typeof json === "object" && json !== null ? { identity: json, startedMs: mtimeMs } : undefined;
  } catch {
    // A directory of before there was the file, or not ours to read: it is nobody's here.
    return undefined;
  }
}
