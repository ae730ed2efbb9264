import { existsSync, writeFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { emit, print } from "../lib/emit.ts";
import { ExecutorInvocation, InvocationError } from "../lib/invocation.ts";
import type { Command, CommandName, CommandOf, CommandValues } from "./commands.ts";
import { CommandError, LONG_MS, parseCommands } from "./commands.ts";

/** An executor without an agent: echoes its prompt, or obeys the commands in it. Returns its exit code. */
export async function main(): Promise<number> {
  try {
    const invocation = await ExecutorInvocation.fromStdin();
    const commands = parseCommands(invocation.prompt);
    await greet(invocation);
    return await obey(commands, `Echo: ${invocation.prompt}`);
  } catch (error) {
    if (!(error instanceof InvocationError || error instanceof CommandError)) throw error;
    await print(`test-executor: ${error.message}\n`, process.stderr);
    return 2;
  }
}

async function greet({ mode, prompt, session_id, executor_session_id }: ExecutorInvocation): Promise<void> {
  await emit.session(executor_session_id ?? `test-${session_id}`);
  await emit.message("user", prompt);
  await emit.message("assistant", `[test-executor] ${mode}: ${prompt}`);
}

/** Obeys one command after the other until one gives an exit code. The echo is the result unless a command decides that. */
async function obey(commands: Command[], echo: string): Promise<number> {
  const decided = commands.some(({ name }) => name === "result" || name === "json" || name === "no-result");
  for (const command of commands) {
    if (command.name === "hang-after-result" && !decided) await emit.result(echo);
    const code = await perform(command);
    if (code !== undefined) return code;
  }
  if (!decided) await emit.result(echo);
  return 0;
}

/** Returns an exit code to end with, or nothing to go on. */
type Perform<T> = (value: T) => Promise<number | void>;

function perform<N extends CommandName>({ name, value }: CommandOf<N>): Promise<number | void> {
  return PERFORM[name](value);
}

const PERFORM: { [N in CommandName]: Perform<CommandValues[N]> } = {
  sleep: (ms) => delay(ms),
  "wait-for-file": waitForFile,
  touch: async (path) => writeFileSync(path, ""),
  print: (text) => print(`${text}\n`),
  error: (text) => print(`${text}\n`, process.stderr),
  status: (text) => emit.status(text),
  tool: callTool,
  env: (name) => print(`${name}=${process.env[name] ?? "(not set)"}\n`),
  cwd: () => print(`${process.cwd()}\n`),
  flood,
  result: (text) => emit.result(text),
  json: (data) => emit.result(data),
  "no-result": async () => {},
  fail: async (message) => {
    await print(`${message}\n`, process.stderr);
    return 1;
  },
  exit: async (code) => code,
  crash: () => {
    process.kill(process.pid, "SIGKILL");
    return delay(LONG_MS);
  },
  "hang-after-result": () => delay(LONG_MS),
  "ignore-term": async () => {
    process.on("SIGTERM", () => {});
  },
  fork,
};

async function waitForFile(path: string): Promise<number | void> {
  for (const deadline = performance.now() + LONG_MS; !existsSync(path); await delay(10)) {
    if (performance.now() > deadline) return PERFORM.fail(`${path} did not appear within ${LONG_MS} ms`);
  }
}

async function callTool(name: string): Promise<void> {
  const call = { tool_call_id: `call-${name}`, name };
  await emit.tool({ ...call, input: { asked_by: "prompt" } });
  await emit.tool({ ...call, output: "done" });
}

const FLOOD_CHUNK = "The quick brown fox jumps over the lazy dog and comes back again.\n".repeat(1024);

async function flood({ bytes, stream }: CommandValues["flood"]): Promise<void> {
  for (let left = bytes; left > 0; left -= FLOOD_CHUNK.length) await print(FLOOD_CHUNK.slice(0, left), process[stream]);
}

/** Leaves a grandchild in the same process group that holds stdout and stderr open. */
async function fork(ms: number): Promise<void> {
  const { spawn } = await import("node:child_process");
  const grandchild = spawn("sleep", [String(ms / 1000)], { stdio: ["ignore", "inherit", "inherit"] });
  grandchild.unref();
  await print(`grandchild ${grandchild.pid}\n`);
}
