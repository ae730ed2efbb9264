import {
  chmodSync,
  existsSync,
  globSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { installFolder } from "./find-program.ts";
import type { HomeRename, RosterEntry } from "./roster-entry.ts";
import { userFile } from "./user-home.ts";

type Env = Readonly<Record<string, string | undefined>>;

export interface PrivateHome {
  /** Absolute path of the folder. */
  readonly dir: string;
  /** Variables that make the agent use it. */
  readonly env: Readonly<Record<string, string>>;
}

/**
 * Makes what the agent keeps in a home appear in a folder of the session: links to the user's logins or copies of them, and the
 * files of its roster entry. The user's own home is read and never written. What the agent writes through a link, such as a renewed
 * token, is the exception, and is what keeps its login alive; what it fetches once is beside our installed agents.
 * @param sessionHomeDir the session's folder, see session-home.ts.
 * @param env what the entry's files take values from; it may put parts of the user's home elsewhere (XDG_DATA_HOME).
 */
export function prepareHome(
  entry: Pick<RosterEntry, "name" | "install" | "home">,
  sessionHomeDir: string,
  userHome: string,
  env: Env,
): PrivateHome {
  const { variables, shared = {}, credentials, files, renames = [] } = entry.home;
  const dir = join(sessionHomeDir, "home");
  privateFolder(dir);
  for (const { from, to, copy = false } of credentials) {
    privateFolder(join(dir, dirname(to)));
    bringCredential(userFile(from, userHome, env), join(dir, to), copy);
  }
  for (const { path, content, when } of files) {
    if (when !== undefined && !env[when]) continue;
    privateFolder(join(dir, dirname(path)));
    writePrivate(join(dir, path), filled(content, dir, env));
  }
  for (const rename of renames) moveAway(dir, rename);
  const own = Object.entries(variables).map(([name, place]) => [name, made(join(dir, place))]);
  const common = Object.entries(shared).map(([name, place]) => [name, sharedFolder(entry, place, dir, env)]);
  return { dir, env: Object.fromEntries([...own, ...common]) as Record<string, string> };
}

/** The folder beside the install; one in the private home where an administrator has installed the agents. */
function sharedFolder(entry: Pick<RosterEntry, "name" | "install">, place: string, dir: string, env: Env): string {
  try {
    return made(join(installFolder(entry, env), "shared", place));
  } catch {
    return made(join(dir, "shared", place));
  }
}

function made(path: string): string {
  privateFolder(path);
  return path;
}

function moveAway(dir: string, { folder, name, to }: HomeRename): void {
  const whole = new RegExp(`^(?:${name})$`);
  for (const path of globSync(join(folder, "*"), { cwd: dir })) {
    const file = basename(path);
    if (!whole.test(file)) continue;
    const place = join(dir, dirname(path));
    const taken = new Set(readdirSync(place));
    let n = 0;
    let free: string;
    do free = file.replace(whole, to.replaceAll("${n}", String(n++)));
    while (taken.has(free));
    renameSync(join(dir, path), join(place, free));
  }
}

/** Writes a file of mode 0600 so that nobody sees a half of it. */
export function writePrivate(path: string, content: string | Uint8Array): void {
  const aside = `${path}.${crypto.randomUUID()}.new`;
  try {
    writeFileSync(aside, content, { mode: 0o600, flag: "wx" });
    renameSync(aside, path);
  } catch (error) {
    rmSync(aside, { force: true });
    throw error;
  }
}

function privateFolder(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  chmodSync(path, 0o700);
}

/**
 * An agent that renews its token may put a file where our link was. That one is kept while it is newer than the user's,
 * whose token may be of no use any more.
 */
function bringCredential(from: string, to: string, copy: boolean): void {
  const there = lstatSync(to, { throwIfNoEntry: false });
  const exists = existsSync(from);
  if (there !== undefined) {
    if (!there.isSymbolicLink() && (!exists || there.mtimeMs >= statSync(from).mtimeMs)) return;
    if (exists && !copy && there.isSymbolicLink() && readlinkSync(to) === from) return;
    // A link to nothing would have a login of this session written into the user's home.
    rmSync(to, { recursive: true });
  }
  if (!exists) return;
  if (copy) writePrivate(to, readFileSync(from));
  else symlinkSync(from, to);
}

/** JSON and TOML write a text within quotes alike. */
function filled(content: string, home: string, env: Env): string {
  return content.replaceAll(/\$\{(?:home|env\.([A-Za-z_]\w*)(?::-([^}]*))?)\}/g, (_, name?: string, or = "") => {
    const value = name === undefined ? home : env[name] || or;
    return JSON.stringify(value).slice(1, -1);
  });
}
