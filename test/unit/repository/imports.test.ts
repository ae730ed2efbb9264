import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, expect, it } from "vitest";
import { inRepository } from "../../support/paths.ts";

/** Which of our folders each folder may import, besides itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  gen: [],
  lib: ["gen"],
  client: ["lib", "gen"],
  mcp: ["client", "lib", "gen"],
  coordinator: ["mcp", "client", "lib", "gen"],
  // The runner offers the agents of the roster by name.
  runner: ["executors", "mcp", "client", "lib", "gen"],
  // `ao` asks the programs, so that it can be shipped without them.
  cli: ["client", "lib", "gen"],
  executors: ["lib", "gen"],
  // Drives executors as a runner does, and answers their agents as the orchestrator does.
  conformance: ["runner", "executors", "mcp", "lib", "gen"],
};

const IMPORT = /(?:\bfrom\s*|\bimport\s*\(?\s*)"(\.{1,2}\/[^"]+)"/g;

/** `file → path` for every import of a source that its folder must not have; paths are relative to the repository. */
function forbidden(file: string, source: string): string[] {
  const [folder = ""] = file.split("/");
  const targets = [...source.matchAll(IMPORT)].map(([, path = ""]) => join(dirname(file), path));
  return targets
    .filter((target) => ![folder, ...(MAY_IMPORT[folder] ?? [])].includes(target.split("/")[0] ?? ""))
    .map((target) => `${file} → ${target}`);
}

describe("imports between folders", () => {
  it.each(Object.keys(MAY_IMPORT))("of %s stay within what it may use", (folder) => {
    const files = globSync(inRepository(`${folder}/**/*.{ts,mjs}`), { exclude: ["**/node_modules/**"] });
    expect(files.length).toBeGreaterThan(0);
    const wrong = files.flatMap((file) => forbidden(relative(inRepository(""), file), readFileSync(file, "utf8")));
    expect(wrong).toEqual([]);
  });

  it.each([
    ['import type { A } from "../../runner/config.ts";', ["cli/verbs/x.ts → runner/config.ts"]],
    ['const { a } = await import("../../coordinator/main.ts");', ["cli/verbs/x.ts → coordinator/main.ts"]],
    ['import "../../mcp/tools.ts";', ["cli/verbs/x.ts → mcp/tools.ts"]],
    ['export { a } from "../../runner/a.ts";', ["cli/verbs/x.ts → runner/a.ts"]],
    ['import { a } from "../../lib/a.ts";\nimport { b } from "./b.ts";\nimport c from "node:fs";', []],
  ])("are found: %s", (source, wrong) => {
    expect(forbidden("cli/verbs/x.ts", source)).toEqual(wrong);
  });
});
