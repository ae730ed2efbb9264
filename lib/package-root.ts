import { fileURLToPath } from "node:url";

/** Absolute path of a file or folder of this package; `path` is relative to its root. */
export function inPackage(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}

/** Absolute path of a module of ours that is run as a program, such as `runner/main`: TypeScript, or what it was compiled to. */
export function programPath(module: string): string {
  return inPackage(`${module}${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`);
}
