import { randomUUID } from "node:crypto";
import { dirname } from "node:path";
import { BOOT_VARIABLE } from "../../lib/boot-variable.ts";
import { executorEnv } from "../../runner/execution/environment.ts";
import { processesMarked } from "../../runner/execution/processes.ts";
import { inRepository } from "./paths.ts";

/** Absolute path of a program in test/fixtures/executors. */
export function fixture(name: string): string {
  return inRepository(`test/fixtures/executors/${name}`);
}

/** The environment of an executor of a boot that only this test has. */
export function testEnv(bootId = `test-${randomUUID()}`): Record<string, string> {
  const run = {
    sessionId: "ses_t",
    sessionName: "t",
    sessionDir: "/nowhere/ses_t",
    runId: "run_t",
    attempt: 1,
    apiUrl: "",
    runToken: "",
    mcpUrl: "",
    bootId,
  };
  return executorEnv(process.env, { passEnv: [], nodeDir: dirname(process.execPath), run });
}

/** Pids that carry the boot marker of that environment. */
export function processesOf(env: Record<string, string>): number[] {
  return processesMarked([`${BOOT_VARIABLE}=${env[BOOT_VARIABLE]}`]);
}
