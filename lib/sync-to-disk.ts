import { closeSync, fsyncSync, openSync } from "node:fs";

/** Makes what a file holds, or the names in a directory, outlive a power failure. Blocks until it is on the disk. */
export function syncToDisk(path: string): void {
  const file = openSync(path, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
