import { fileURLToPath } from "node:url";

/** The file or folder of this repository at `path`, which is relative to its root. */
export function inRepository(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}
