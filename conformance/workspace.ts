import { cpSync, existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** The places of a check, all below one temporary folder. */
export interface Workspace {
  readonly root: string;
  /** HOME of the runs: not the user's, so that nothing of the user's can be lost, and nothing of the user's is taken for a login. */
  readonly home: string;
  readonly project: string;
  /** Another directory, for a session that goes on elsewhere. */
  readonly elsewhere: string;
  /** The private folder of a session. */
  sessionDir(sessionId: string): string;
  remove(): void;
}

/** What stands in the home before the first run: a run that writes over it is found out, and so is one that adds to it. */
const SEEDS: Readonly<Record<string, string>> = {
  ".profile": "# of the user\n",
  ".gitconfig": "[user]\n\tname = somebody\n",
  ".config/settings.json": '{"theme": "dark"}\n',
};

/** @param userAgents the user's own files of the roster, which the runs are to know. */
export function makeWorkspace(userAgents: string): Workspace {
  // Where the temporary folder is a link, an agent would name its directory otherwise than we do.
  const root = realpathSync(mkdtempSync(join(tmpdir(), "ao-check-")));
  const [home, project, elsewhere] = ["home", "project", "elsewhere"].map((name) => {
    const path = join(root, name);
    mkdirSync(path);
    return path;
  }) as [string, string, string];
  for (const [path, text] of Object.entries(SEEDS)) {
    mkdirSync(dirname(join(home, path)), { recursive: true });
    writeFileSync(join(home, path), text);
  }
  if (existsSync(userAgents)) {
    cpSync(userAgents, join(home, ".config", "agent-runner", "agents"), { recursive: true, dereference: true });
  }
  return {
    root,
    home,
    project,
    elsewhere,
    sessionDir(sessionId) {
      const path = join(root, "sessions", sessionId);
      mkdirSync(path, { recursive: true, mode: 0o700 });
      return path;
    },
    remove: () => rmSync(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }),
  };
}
