import { readFileSync } from "node:fs";
import { inPackage } from "./package-root.ts";

/** Version of this package, for `--version` and for the peer. */
export const VERSION: string = readVersion();

function readVersion(): string {
  const text = readFileSync(inPackage("package.json"), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
