import { fileURLToPath } from "node:url";

/** Absolute path of a file or folder of this package; `path` is relative to its root. */
export function inPackage(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}

/** Ending of our modules' files: TypeScript in a checkout, what it was compiled to in the published package. */
export const MODULE_EXTENSION = import.meta.url.endsWith(".ts") ? ".ts" : ".js";
