import { execFileSync } from "node:child_process";
import { cpSync, globSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { inPackage } from "../lib/package-root.ts";

/*
 * Makes dist/, what the published package runs: compiled JavaScript, because Node strips no types from files under
 * node_modules, and beside it every other file that the programs read, in the same places. Runs before `npm pack`.
 */

/** What is copied as it is. Globs of files, from the root of the repository. */
const ASSETS = [
  "runner/**/*.sh",
  "executors/*.{md,json}",
  "executors/*/ao-*-exec",
  "executors/*/executor.json",
  "lib/*.py",
  "sdk/python/**/*.py",
  "examples/**/*.{json,md}",
];

const root = inPackage("");
const dist = join(root, "dist");

rmSync(dist, { recursive: true, force: true });
execFileSync(join(root, "node_modules/.bin/tsc"), ["--project", join(root, "packaging/tsconfig.json")], {
  stdio: "inherit",
});
for (const file of ASSETS.flatMap((pattern) => globSync(pattern, { cwd: root }))) copy(file);
copyManifest();

function copy(file: string): void {
  const to = join(dist, file);
  mkdirSync(dirname(to), { recursive: true });
  if (!file.endsWith("-exec")) return cpSync(join(root, file), to);
  // An executor is a few lines of plain JavaScript that import the rest.
  const text = readFileSync(join(root, file), "utf8").replaceAll(/(import\("\.[^"]*)\.ts"/g, '$1.js"');
  writeFileSync(to, text, { mode: statSync(join(root, file)).mode });
}

/** The programs read their own version and pins; nothing else of the manifest belongs beside compiled files. */
function copyManifest(): void {
  const { name, version, type, optionalDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  writeFileSync(
    join(dist, "package.json"),
    `${JSON.stringify({ name, version, type, optionalDependencies }, null, 2)}\n`,
  );
}
