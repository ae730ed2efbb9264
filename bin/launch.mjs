// Starts a program of this package with the pinned Node, whatever Node the host has. Plain JavaScript for that reason.
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import { pinnedNode } from "./pinned-node.mjs";

/** Runs `program`, a path from the package root, with this process's arguments and streams, and ends as it ends. */
export function launch(program) {
  const node = pinnedNode();
  if (node === undefined) {
    process.stderr.write("error: the pinned Node is not installed\nhint: run `npm ci` (without --omit=optional)\n");
    process.exit(2);
  }
  const path = fileURLToPath(new URL(`../${program}`, import.meta.url));
  // Keeping the stripped and compiled form makes the start faster and the process smaller, and a runner forks its size.
  const NODE_COMPILE_CACHE = fileURLToPath(new URL("../node_modules/.cache/compiled", import.meta.url));
  const env = { NODE_COMPILE_CACHE, ...process.env };
  const child = spawn(node, [path, ...process.argv.slice(2)], { stdio: "inherit", env });
  // A terminal's Ctrl+C reaches the child by itself; forwarding it would count twice.
  process.on("SIGINT", () => undefined);
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.once("error", (error) => {
    process.stderr.write(`error: ${node} cannot be started: ${error.message}\n`);
    process.exit(70);
  });
  child.once("exit", (code, signal) => {
    if (signal === null) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
    // A signal that does not end this process still decides its exit code.
    setTimeout(() => process.exit(128 + constants.signals[signal]), 100);
  });
}
