import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, extname, join, relative } from "node:path";
import { expect, it } from "vitest";
import { parseCoordinatorConfig } from "../../../coordinator/config.ts";
import { parseBlueprint } from "../../../coordinator/core/blueprints/blueprint.ts";
import { TOOLS } from "../../../mcp/tools.ts";
import { parseRunnerOptions } from "../../../runner/config.ts";
import { discoverExecutors } from "../../../runner/settings/discovery.ts";
import { listProfiles } from "../../../runner/settings/profiles.ts";
import { inRepository } from "../../support/paths.ts";

/*
 * What documents say about the repository is true.
 *
 * A _path_ is a word in backticks, outside of code blocks, that
 *   - begins with a folder at the top of the repository: `coordinator/core`, `test/unit/core/run`;
 *   - or begins with a folder of a module, as in `core/match.ts` for coordinator/core/match.ts;
 *   - or is a code file by its ending, with or without a folder: `lease-life.ts`.
 * It may lack its ending (`test/unit/core/run`), name something in the file (`core/match.suits`), and hold placeholders
 * (`executors/<name>/ao-<name>-exec`), of which only the folder before the first one is looked at.
 */

const ROOT = inRepository("");
const NOT_OURS = new Set(["node_modules", ".git", "vendor"]);
const MODULES = ["coordinator", "runner", "lib", "cli", "mcp", "client", "executors", "test"];
const CODE = /\.(?:ts|mjs|proto|sh|py)$/;
const ENDINGS = ["", ".ts", ".test.ts", ".mjs", ".proto", ".sh", ".py", ".md", ".json"];

const FILES = filesBelow(ROOT);
const NAMES = new Set(FILES.map((file) => basename(file)));
const TOP = new Set(foldersIn(ROOT));
const MODULE_FOLDERS = new Set(MODULES.flatMap((module) => foldersIn(join(ROOT, module))));

/** Everything written for people; the prompts of the examples are for models. */
const DOCUMENTS = FILES.filter((file) => file.endsWith(".md") && !file.startsWith("examples/"));

function filesBelow(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (NOT_OURS.has(entry.name)) return [];
    return entry.isDirectory() ? filesBelow(path) : [relative(ROOT, path)];
  });
}

function foldersIn(dir: string): string[] {
  if (!existsSync(dir)) return [];
  return readdirSync(dir).filter((name) => !NOT_OURS.has(name) && statSync(join(dir, name)).isDirectory());
}

function text(file: string): string {
  return readFileSync(join(ROOT, file), "utf8");
}

function withoutCodeBlocks(markdown: string): string {
  return markdown.replaceAll(/^ *```[^]*?^ *```$/gm, "");
}

/** The paths that a document names in backticks. */
function pathsIn(markdown: string): string[] {
  const spans = Array.from(withoutCodeBlocks(markdown).matchAll(/`([^`\n]+)`/g), ([, span = ""]) => span);
  return spans.flatMap((span) => span.split(/\s+/)).filter(isPath);
}

function isPath(word: string): boolean {
  if (!/^[\w.<*-]+(?:\/[\w.<>*#-]*)*$/.test(word)) return false;
  const [first = "", ...more] = word.split("/");
  if (more.length > 0 && (TOP.has(first) || MODULE_FOLDERS.has(first))) return true;
  return CODE.test(word) && !word.startsWith(".");
}

function pathExists(word: string): boolean {
  const [plain = ""] = word.split(/[<*]/);
  const path = plain === word ? word.replace(/\/$/, "") : plain.slice(0, Math.max(0, plain.lastIndexOf("/")));
  if (!path.includes("/") && CODE.test(path)) return NAMES.has(path);
  const member = path.replace(/\.#?\w+$/, "");
  const names = extname(path) === "" || ENDINGS.includes(extname(path)) ? [path] : [path, member];
  const places = ["", ...MODULES].flatMap((module) => names.map((name) => join(ROOT, module, name)));
  return places.some((place) => ENDINGS.some((ending) => existsSync(place + ending)));
}

function links(markdown: string): { target: string; anchor: string }[] {
  const found = withoutCodeBlocks(markdown).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)/g);
  return Array.from(found, ([, target = "", anchor = ""]) => ({ target, anchor }));
}

/** Anchors of the headings of a document, as GitHub makes them. */
function anchors(markdown: string): string[] {
  const headings = withoutCodeBlocks(markdown).matchAll(/^#+ +(.+)$/gm);
  return Array.from(headings, ([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}

it("takes for a path what is one, and nothing else", () => {
  const named = pathsIn("`core/match.ts` and `node vendor/x.ts`, `test/unit/core-run`, not `a/b`, `run_…` or `text`");
  expect(named).toEqual(["core/match.ts", "vendor/x.ts", "test/unit/core-run"]);
  expect(
    ["core/match.ts", "core/match.suits", "test/unit/core/run", "executors/<name>/ao-<name>-exec"].map(pathExists),
  ).toEqual([true, true, true, true]);
  expect(["core/nothing.ts", "nothing.ts", "test/unit/core-run", "core/nothing.next"].map(pathExists)).toEqual([
    false,
    false,
    false,
    false,
  ]);
});

it.each(DOCUMENTS)("names no path that does not exist, in %s", (document) => {
  expect(pathsIn(text(document)).filter((word) => !pathExists(word))).toEqual([]);
});

it.each(DOCUMENTS)("links to files and headings that exist, in %s", (document) => {
  const broken = links(text(document)).filter(({ target, anchor }) => {
    const file = target === "" ? document : join(dirname(document), target);
    if (!existsSync(join(ROOT, file))) return true;
    return anchor !== "" && !anchors(text(file)).includes(anchor);
  });
  expect(broken).toEqual([]);
});

it("has every document below docs in the index", () => {
  const linked = new Set(links(text("docs/README.md")).map(({ target }) => join("docs", target)));
  expect(
    DOCUMENTS.filter((file) => file.startsWith("docs/") && file !== "docs/README.md" && !linked.has(file)),
  ).toEqual([]);
});

const SOURCES = FILES.filter((file) => /\.(?:ts|mjs|proto|py|sh|md)$/.test(file));

it("refers to no document that is not in the repository", () => {
  expect(SOURCES.filter((file) => /(?:design) §|(?:seed) 00/.test(text(file)))).toEqual([]);
});

it("refers to records that exist", () => {
  const numbers = new Set(readdirSync(join(ROOT, "docs/adr")).map((file) => Number(file.slice(0, 4))));
  const wrong = SOURCES.flatMap((file) =>
    Array.from(text(file).matchAll(/\bADR (\d+)/g), ([reference, number]) => ({ file, reference, number })).filter(
      ({ number }) => !numbers.has(Number(number)),
    ),
  );
  expect(wrong).toEqual([]);
});

/** Command lines of the code blocks of the guide that begin so, without the variables in front. */
function guideCommands(program: string): string[][] {
  const guide = DOCUMENTS.filter((file) => file.startsWith("docs/guide/")).map(text);
  const lines = guide.flatMap((markdown) => markdown.split("\n")).map((line) => line.replace(/^(?:\w+=\S+ )+/, ""));
  return lines.filter((line) => line.startsWith(`npx ${program} `)).map((line) => line.split(/\s+/).slice(2));
}

it("shows commands of the two servers whose flags exist", () => {
  const coordinators = guideCommands("agent-coordinator");
  const runners = guideCommands("agent-runner");
  expect([coordinators.length, runners.length]).toEqual([1, 6]);
  for (const words of coordinators) parseCoordinatorConfig(words, {}, () => undefined);
  for (const words of runners) parseRunnerOptions(words, {}, () => undefined);
});

it("shows a profile and a blueprint without a fault", () => {
  const [, profile = ""] = /^```json\n(.*?)^```$/ms.exec(text("docs/guide/executor-profiles.md")) ?? [];
  const dir = mkdtempSync(join(tmpdir(), "docs-test-"));
  try {
    writeFileSync(join(dir, "quick.json"), profile);
    const listed = listProfiles([dir], discoverExecutors(inRepository("executors")));
    expect(listed).toMatchObject({ profiles: [{ name: "quick", type: "test-executor" }], problems: [] });
  } finally {
    rmSync(dir, { recursive: true });
  }
  const [, agent] = /agent\.json <<'EOT'\n(.*?)^EOT$/ms.exec(text("docs/guide/agent-trees.md")) ?? [];
  const files = { agent, systemPrompt: undefined, mcp: undefined, disabled: false };
  expect(parseBlueprint("reader", files)).toMatchObject({ blueprint: { name: "reader" }, warnings: [] });
});

it("lists every metric and every tool", () => {
  const names = Array.from(
    text("coordinator/telemetry/metrics.ts").matchAll(/"((?:agent|process)_\w+)"/g),
    ([, name]) => name,
  );
  const operating = text("docs/guide/operating.md");
  expect(names.length).toBeGreaterThan(10);
  expect(names.filter((name = "") => !operating.includes(`\`${name}`))).toEqual([]);
  const trees = text("docs/guide/agent-trees.md");
  expect(TOOLS.filter(({ name }) => !trees.includes(`\`${name}\``)).map(({ name }) => name)).toEqual([]);
});
