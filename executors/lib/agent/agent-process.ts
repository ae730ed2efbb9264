import { spawn } from "node:child_process";
import type { ChildProcessByStdio } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { AgentError } from "./agent-error.ts";
import { LineSplitter } from "./line-splitter.ts";

/** End of the agent's stderr that is kept, for the message of a run that fails. */
const STDERR_TAIL_BYTES = 4 * 1024;

/** How long what an agent left behind may hold its output open. */
const REST_MS = 2_000;

/** What to start. */
export interface AgentCommand {
  /** Absolute path, or a name that is looked for on PATH. */
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** How to install it, for the message when it is not there. */
  readonly installHint: string;
}

/** How the agent's process ended. */
export interface AgentExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Whether somebody asked this run to stop before the end. The runner decides then, whatever the exit code is. */
  readonly stopped: boolean;
  readonly stderrTail: string;
}

/**
 * An agent's own program as a child of the executor, in the executor's process group: what the runner sends to the group
 * reaches it without our help. Its stderr is passed on as it comes.
 */
export class AgentProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly pid: number;
  /** Resolves when it has ended and its output is read, or is held open by what it left behind. Never rejects. */
  readonly exited: Promise<AgentExit>;
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;

  private constructor(child: ChildProcessByStdio<Writable, Readable, Readable>, pid: number) {
    this.#child = child;
    this.pid = pid;
    this.stdin = child.stdin;
    this.stdout = child.stdout;
    // An agent that does not read to the end, or ends first, is judged by its exit.
    child.stdin.on("error", () => undefined);
    this.exited = watch(child);
  }

  /** @throws AgentError AGENT_NOT_INSTALLED, or AGENT_FAILED when it cannot be started. */
  static async start({ program, args, env, cwd, installHint }: AgentCommand): Promise<AgentProcess> {
    const child = spawn(program, args, { cwd, env: { ...env }, stdio: ["pipe", "pipe", "pipe"] });
    if (child.pid !== undefined) return new AgentProcess(child, child.pid);
    const error = await new Promise<NodeJS.ErrnoException>((resolve) => child.once("error", resolve));
    if (error.code === "ENOENT")
      throw new AgentError("AGENT_NOT_INSTALLED", `${program} is not installed; ${installHint}`);
    throw new AgentError("AGENT_FAILED", `${program} could not be started: ${error.message}`, { cause: error });
  }

  /** The lines of stdout as they come. The agent waits while the reader does. */
  async *lines(): AsyncGenerator<string> {
    const splitter = new LineSplitter();
    try {
      for await (const chunk of this.stdout) yield* splitter.push(chunk as Buffer);
    } catch (error) {
      // It has ended, and what it left behind held its output open.
      if ((error as NodeJS.ErrnoException).code !== "ERR_STREAM_PREMATURE_CLOSE") throw error;
    }
    const last = splitter.end();
    if (last !== undefined) yield last;
  }

  /** Asks it to end; `SIGKILL` ends it. Does nothing when it has ended. */
  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Reads and waits no more: a process that the agent has left behind may hold its output open for ever. */
  abandon(): void {
    this.#child.stdout.destroy();
    this.#child.stderr.destroy();
    this.#child.unref();
  }
}

function watch(child: ChildProcessByStdio<Writable, Readable, Readable>): Promise<AgentExit> {
  let stopped = false;
  let tail = Buffer.alloc(0);
  // The runner signals the whole group: the agent has the signal too, and we outlive it to say how it ended.
  const onStop = () => {
    stopped = true;
  };
  process.on("SIGTERM", onStop).on("SIGINT", onStop);
  child.stderr.on("data", (chunk: Buffer) => {
    tail = Buffer.concat([tail, chunk]).subarray(-STDERR_TAIL_BYTES);
    if (!process.stderr.write(chunk)) {
      child.stderr.pause();
      process.stderr.once("drain", () => child.stderr.resume());
    }
  });
  return new Promise((resolve) => {
    let rest: NodeJS.Timeout | undefined;
    const waitForRest = (): void => {
      rest = setTimeout(() => {
        // Its reader is slow.
        if (child.stdout.readableLength > 0) return waitForRest();
        child.stdout.destroy();
        child.stderr.destroy();
      }, REST_MS);
    };
    child.once("exit", waitForRest);
    child.once("close", (code, signal) => {
      clearTimeout(rest);
      process.off("SIGTERM", onStop).off("SIGINT", onStop);
      resolve({ code, signal, stopped, stderrTail: tail.toString("utf8").trim() });
    });
  });
}
