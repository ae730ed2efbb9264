/** __NAME__: one JSON document on stdin, lines on stdout, an exit code; more in agent-runner's executors/README.md. */
import { readFileSync } from "node:fs";

/** What this executor needs of an invocation; the README has all fields. */
interface Invocation {
  schema_version: string;
  mode: "start" | "resume";
  session_id: string;
  prompt: string;
  /** What an earlier run of the session said. */
  executor_session_id?: string;
}

/** Says an event: a line of JSON. */
function say(event: { type: string; [field: string]: unknown }): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** What is to be done; undefined, after words, when it cannot be used. */
function invocation(): Invocation | undefined {
  try {
    const document = JSON.parse(readFileSync(0, "utf8")) as Invocation;
    if (!document.schema_version.startsWith("2.")) {
      throw new Error(`schema_version is ${document.schema_version}, not 2.x`);
    }
    return document;
  } catch (error) {
    process.stderr.write(`__NAME__: the invocation cannot be used: ${(error as Error).message}\n`);
    process.exitCode = 2;
    return undefined;
  }
}

function main(): void {
  const run = invocation();
  if (run === undefined) return;
  // Said first, so that a run that is cut short can be resumed. The next run of the session gets it back.
  say({ type: "session", executor_session_id: run.executor_session_id ?? `__NAME__-${run.session_id}` });
  say({ type: "message", role: "user", text: run.prompt });

  // Your agent does its work here. What goes wrong: a line on stderr, and an exit code other than 0.
  say({ type: "status", text: "counting" });
  const words = run.prompt.split(/\s+/).filter((word) => word !== "").length;

  say({ type: "result", text: `${run.mode}: ${words} words`, data: { words } });
}

main();
