import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { installCommand, installFolder, installedProgram } from "../executors/lib/roster/find-program.ts";
import { loadEntry, rosterDirs } from "../executors/lib/roster/load-roster.ts";

/*
 * Installs agents of the roster for the tests, into AGENT_RUNNER_AGENTS_DIR: `node packaging/install-agents.ts claude pi`. What is
 * there already is left as it is. Exits with 1 when one could not be installed.
 */

const { env } = process;
if (!env["AGENT_RUNNER_AGENTS_DIR"]) {
  process.stderr.write("AGENT_RUNNER_AGENTS_DIR is not set; it names the folder for the agents\n");
  process.exit(2);
}
// Of the user's own agents none counts: tests want the pinned one.
const only = { ...env, PATH: `${dirname(process.execPath)}:/usr/bin:/bin` };
for (const name of process.argv.slice(2)) {
  const entry = loadEntry(name, rosterDirs(env));
  if (installedProgram(entry, { AGENT_RUNNER_AGENTS_DIR: env["AGENT_RUNNER_AGENTS_DIR"] }) !== undefined) continue;
  mkdirSync(installFolder(entry, only), { recursive: true });
  process.stdout.write(`${name} ${entry.install.version}, ${entry.install.sizeMb} MB\n`);
  const { status } = spawnSync("sh", ["-c", installCommand(entry, only)], { env: only, stdio: "inherit" });
  if (status !== 0) process.exitCode = 1;
}
