// npm 10 does not link the bin of an optional dependency when several platform variants are in the lock.
// Runs as `postinstall`; plain JavaScript because the host's Node may be 20.
import { existsSync, mkdirSync, symlinkSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { pinnedNode } from "./pinned-node.mjs";

const link = fileURLToPath(new URL("../node_modules/.bin/node", import.meta.url));
const target = pinnedNode();
if (target !== undefined && !existsSync(link)) {
  mkdirSync(new URL("../node_modules/.bin/", import.meta.url), { recursive: true });
  symlinkSync(target, link);
}
