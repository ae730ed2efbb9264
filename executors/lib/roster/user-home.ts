import { join } from "node:path";

/** Folders of a home that a variable may put elsewhere. */
const MOVED: readonly (readonly [folder: string, variable: string])[] = [
  [".config/", "XDG_CONFIG_HOME"],
  [".local/share/", "XDG_DATA_HOME"],
  [".local/state/", "XDG_STATE_HOME"],
  [".cache/", "XDG_CACHE_HOME"],
];

/** Absolute path of a file of the user's home; `file` is relative to it. */
export function userFile(file: string, home: string, env: Readonly<Record<string, string | undefined>>): string {
  for (const [folder, variable] of MOVED) {
    const elsewhere = env[variable];
    if (elsewhere && file.startsWith(folder)) return join(elsewhere, file.slice(folder.length));
  }
  return join(home, file);
}
