import { readFileSync, statSync } from "node:fs";
import type { Place } from "./claim.ts";

/** Where a directory is. @throws when it cannot be looked at. */
export function placeOf(path: string): Place {
  const { dev, ino } = statSync(path, { bigint: true });
  const [machine, boot] = [machineId(), machineBootId()];
  return { machineId: machine, machineBootId: boot, path, dev: String(dev), ino: String(ino) };
}

/** True when the directory that was recorded is still at its path. */
export function isInPlace({ path, dev, ino }: Place): boolean {
  try {
    const status = statSync(path, { bigint: true });
    return String(status.dev) === dev && String(status.ino) === ino;
  } catch {
    // Not there, or out of reach: it is not what protects anything.
    return false;
  }
}

/** Identity of the installed system, the same after a change of the host name; empty where it has none, as in many images. */
export function machineId(): string {
  return firstOf(["/etc/machine-id", "/var/lib/dbus/machine-id"]);
}

/** Identity of the running system; empty where there is no /proc. */
export function machineBootId(): string {
  return firstOf(["/proc/sys/kernel/random/boot_id"]);
}

function firstOf(paths: readonly string[]): string {
  for (const path of paths) {
    try {
      const text = readFileSync(path, "utf8").trim();
      if (text !== "") return text;
    } catch {
      // The next one; without any nothing is known.
    }
  }
  return "";
}
