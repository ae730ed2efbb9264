import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { containerPaths } from "../../executors/lib/agent-config/container-paths.ts";
import type { ContainerPaths } from "../../executors/lib/agent-config/container-paths.ts";
import { AGENT_PROVIDERS } from "../../executors/lib/agent-config/providers.ts";
import { renderScript } from "../../executors/lib/agent-config/script.ts";
import { tempFolder } from "./agent-config.ts";

/** The programs that the script may call, and no agent of this machine. */
const TOOLS = [
  "bash",
  "cat",
  "cp",
  "env",
  "find",
  "flock",
  "head",
  "ln",
  "mkdir",
  "mktemp",
  "mv",
  "python3",
  "rm",
  "sleep",
  "touch",
  "tr",
];

const STUB = `#!BASH
{ printf '\\036%s' "\${0##*/}"; if [ "$#" -gt 0 ]; then printf '\\037%s' "$@"; fi; } >>"$STUB_LOG"
env >"$STUB_ENV"
if [ -n "\${STUB_STDIN-}" ]; then cat >"$STUB_STDIN"; fi
echo "VENDOR USAGE"
eval "\${STUB_DO-}"
exit "\${STUB_RC:-0}"
`;

/** Of the program itself: what a version manager puts on PATH needs more than itself. */
function pathOf(tool: string): string {
  const ask = tool === "python3" ? "python3 -c 'import sys; print(sys.executable)'" : `command -v ${tool}`;
  return spawnSync("sh", ["-c", ask], { encoding: "utf8" }).stdout.trim();
}

export interface RunOptions {
  readonly env?: Record<string, string>;
  readonly input?: string;
  /** Of bash; default `-u`. */
  readonly flags?: string;
}

export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A stand-in for the container of a task: the script, agents that write down how they are called, nothing else on PATH. */
export class ScriptHarness {
  readonly root = tempFolder();
  readonly paths: ContainerPaths;
  readonly home = join(this.root, "home");
  readonly #log = join(this.root, "calls");

  constructor(options: { hasAgents?: boolean; taskSettings?: boolean } = {}) {
    const { root } = this;
    this.paths = containerPaths({
      config: join(root, "terok"),
      workspace: join(root, "work space"),
      home: this.home,
      share: join(root, "share"),
    });
    for (const folder of ["bin", "home", "terok", "work space", "share", "tmp"]) mkdirSync(join(root, folder));
    for (const tool of TOOLS) {
      const found = pathOf(tool);
      if (found !== "") symlinkSync(found, join(root, "bin", tool));
    }
    for (const name of [...AGENT_PROVIDERS.keys(), "init-ssh-and-repo.sh"]) this.stub(name);
    const script = renderScript({ hasAgents: false, taskSettings: false, ...options, paths: this.paths });
    writeFileSync(join(root, "terok-executor.sh"), script);
  }

  /** A program on PATH that writes down its call; `STUB_DO`, `STUB_RC` and `STUB_STDIN` say what it does besides. */
  stub(name: string): void {
    const text = name === "init-ssh-and-repo.sh" ? "#!BASH\nexit 0\n" : STUB;
    const bash = join(this.root, "bin/bash");
    writeFileSync(join(this.root, "bin", name), text.replace("BASH", bash), { mode: 0o755 });
  }

  /** Writes a file of the config folder. */
  config(name: string, content: string): string {
    writeFileSync(join(this.paths.config, name), content);
    return join(this.paths.config, name);
  }

  read(name: string): string {
    return readFileSync(join(this.paths.config, name), "utf8");
  }

  /** The arguments of every call so far, each behind the name of the agent. */
  get calls(): string[][] {
    if (!existsSync(this.#log)) return [];
    return readFileSync(this.#log, "utf8")
      .split("\u001e")
      .slice(1)
      .map((call) => call.split("\u001f"));
  }

  /** Variables of the last agent. */
  get agentEnv(): Record<string, string> {
    const lines = readFileSync(join(this.root, "env"), "utf8").split("\n");
    return Object.fromEntries(lines.map((line) => [line.split("=")[0] ?? "", line.slice(line.indexOf("=") + 1)]));
  }

  env(more: Record<string, string> = {}): Record<string, string> {
    return {
      PATH: join(this.root, "bin"),
      HOME: this.home,
      TMPDIR: join(this.root, "tmp"),
      STUB_LOG: this.#log,
      STUB_ENV: join(this.root, "env"),
      ...more,
    };
  }

  arguments(command: string, flags = "-u"): string[] {
    // Without --norc bash takes a socket on stdin for a login from afar, and reads the machine's own files.
    return ["--norc", flags, "-c", `source '${this.root}/terok-executor.sh'\n${command}`];
  }

  run(command: string, { env, input = "", flags }: RunOptions = {}): Ran {
    const options = { env: this.env(env), cwd: this.paths.workspace, input, encoding: "utf8" } as const;
    const { status, stdout, stderr } = spawnSync("bash", this.arguments(command, flags), options);
    return { status, stdout, stderr };
  }

  /** In a process group of its own, which is gone after the test. */
  start(command: string, env: Record<string, string> = {}) {
    const options = { env: this.env(env), cwd: this.paths.workspace, detached: true, stdio: "ignore" } as const;
    const child = spawn("bash", this.arguments(command), options);
    onTestFinished(() => {
      try {
        process.kill(-(child.pid ?? 0), "SIGKILL");
      } catch {
        // It has ended.
      }
    });
    return child;
  }
}

/** What stands before everything else. */
const ALWAYS: Readonly<Record<string, readonly string[]>> = { claude: ["--add-dir", "/"] };

/** A call of an agent with these words, behind those that it always gets. */
export function call(name: string, ...words: string[]): string[] {
  return [name, ...(ALWAYS[name] ?? []), ...words];
}

const hasToml = spawnSync("python3", ["-c", "import tomllib"]).status === 0;
/** Why a test that needs Python with TOML is skipped. */
export const noPython = hasToml ? undefined : "there is no Python 3.11";
