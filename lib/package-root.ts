import { fileURLToPath } from "node:url";

/** Absolute path of a file or folder of this package; `path` is relative to its root. */
export function inPackage(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}
