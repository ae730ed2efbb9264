import { readFileSync } from "node:fs";
import { inRepository } from "./paths.ts";

/** Lines that a real agent has printed. */
export function agentLines(name: string): string[] {
  return readFileSync(inRepository(`test/fixtures/agents/${name}.jsonl`), "utf8")
    .split("\n")
    .filter((line) => line !== "");
}
