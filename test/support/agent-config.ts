import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import { AgentConfigError } from "../../executors/lib/agent-config/diagnostics.ts";
import type { Diagnostic } from "../../executors/lib/agent-config/diagnostics.ts";
import { AgentConfigSpec } from "../../executors/lib/agent-config/spec.ts";
import type { AgentConfigFields } from "../../executors/lib/agent-config/spec.ts";

/** A folder that is gone after the test. */
export function tempFolder(): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "agent-config-test-")));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Writes a file and the folders above it. */
export function put(path: string, content: string | Uint8Array): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

/** A spec of task t1, with its folders below `root`. */
export function specIn(root: string, change: Partial<AgentConfigFields> = {}): AgentConfigSpec {
  const fields = { tasksRoot: join(root, "tasks"), taskId: "t1", subagents: [], mountsBase: join(root, "mounts") };
  return new AgentConfigSpec({ ...fields, ...change });
}

export function json(path: string): Record<string, unknown> {
  return JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
}

export function codes(diagnostics: readonly Diagnostic[]): string[] {
  return diagnostics.map(({ code }) => code);
}

/** What was refused. */
export function refusal(work: () => unknown): AgentConfigError {
  try {
    work();
  } catch (error) {
    if (error instanceof AgentConfigError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}
