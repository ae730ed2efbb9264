import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parse as parseYaml } from "yaml";
import { POINTS } from "../../../conformance/points.ts";
import { AgentError } from "../../../executors/lib/agent/agent-error.ts";
import { loadEntry, loadRoster, rosterDirs } from "../../../executors/lib/roster/load-roster.ts";
import {
  checkedEntry,
  entryOf,
  mergeEntries,
  parsePart,
  parseRosterEntry,
  RosterError,
} from "../../../executors/lib/roster/parse-entry.ts";
import type { RosterPart } from "../../../executors/lib/roster/parse-entry.ts";
import { inRepository } from "../../support/paths.ts";
import { thrown } from "../../support/thrown.ts";

const BUNDLED = inRepository("executors/roster");
const NAMES = [
  ...["blablador", "claude", "codex", "copilot", "gemini", "kimi", "kisski", "opencode", "openrouter", "pi", "qwen"],
  "vibe",
];
const VIBE = readFileSync(join(BUNDLED, "vibe.yaml"), "utf8");

let dir: string;
let userDir: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "roster-"));
  userDir = join(dir, "agents");
});

afterEach(() => rmSync(dir, { recursive: true, force: true }));

function userFile(name: string, text: string | Buffer): string {
  mkdirSync(userDir, { recursive: true });
  const file = join(userDir, name);
  writeFileSync(file, text);
  return file;
}

const load = (bundledDir = BUNDLED) => loadRoster({ bundledDir, userDir });

/** The file of vibe with one line instead of another. */
const changed = (from: string, to: string): string => {
  expect(VIBE).toContain(from);
  return VIBE.replace(from, to);
};

describe("the roster of this package", () => {
  it("has these agents, each in a file that fits the schema", () => {
    const { entries, problems } = load();
    expect(problems).toEqual([]);
    expect(entries.map(({ name }) => name)).toEqual(NAMES);
    expect(readdirSync(BUNDLED).filter((file) => file.endsWith(".yaml"))).toEqual(NAMES.map((name) => `${name}.yaml`));
    for (const name of NAMES) expect(wholeOf(name)).toSatisfy((part: RosterPart) => entryOf(part, name).name === name);
  });

  it("has a schema that is strict with itself: every map closed, every key described", () => {
    const schema = JSON.parse(readFileSync(join(BUNDLED, "roster.schema.json"), "utf8")) as object;
    expect(() =>
      new Ajv2020({ strict: true, allowUnionTypes: true, formats: { regex: true } }).compile(schema),
    ).not.toThrow();
    const open = mapsIn(schema).filter((map) => map.properties !== undefined && map.additionalProperties !== false);
    expect(open).toEqual([]);
    const described = (key: { description?: string; $ref?: string }) =>
      key.description !== undefined || key.$ref !== undefined;
    const silent = mapsIn(schema).flatMap(({ properties = {} }) =>
      Object.values(properties).filter((it) => !described(it)),
    );
    expect(silent).toEqual([]);
  });

  it("drives agents that speak no protocol, or none with tools, by their own mode", () => {
    for (const { name, executor, start, output, session } of load().entries) {
      if (executor === "acp") expect([name, start.acp, session.acp, output.acpUsage]).not.toContain(undefined);
      else expect(start.acp).toBeUndefined();
    }
  });

  it("names every way out for a session: an id flag with an id of ours, a resume flag unless nothing resumes", () => {
    for (const { session, mcp } of load().entries) {
      expect(session.idFlag === undefined).toBe(session.id === "theirs");
      expect(session.resumeFlag === undefined).toBe(session.resume === "none");
      expect(mcp.flag !== undefined).toBe(["flag-file", "config-flags"].includes(mcp.transport));
      expect(mcp.variable !== undefined).toBe(mcp.transport === "env-json");
      expect(mcp.file !== undefined).toBe(mcp.transport === "home-file");
    }
  });

  it("names what an agent lacks as the check of executors does", () => {
    const known = [...POINTS.map(({ name }) => name), "limits", "cost", "usage", "schema"] as string[];
    const lacks = load().entries.flatMap(({ lacks }) => Object.keys(lacks));
    expect(lacks.filter((name) => !known.includes(name))).toEqual([]);
  });

  it("gives OpenCode a provider by extending it, with one folder of the install", () => {
    const [opencode, ...rest] = ["opencode", "blablador", "kisski", "openrouter"].map((name) =>
      loadEntry(name, { bundledDir: BUNDLED, userDir }),
    );
    for (const one of rest) {
      expect(one).toMatchObject({ install: opencode!.install, program: opencode!.program, session: opencode!.session });
      const config = JSON.parse(one.start.env["OPENCODE_CONFIG_CONTENT"]!) as Record<string, unknown>;
      expect(config).toMatchObject({ autoupdate: false, share: "disabled", enabled_providers: [one.name] });
      expect(one.endpoint).toMatchObject({ keys: [`${one.name.toUpperCase()}_API_KEY`], logins: [] });
    }
  });
});

/** What the files of an agent say together. */
function wholeOf(name: string): RosterPart {
  const part = parsePart(readFileSync(join(BUNDLED, `${name}.yaml`), "utf8"));
  const base = part["extends"];
  return typeof base === "string" ? mergeEntries(wholeOf(base), part) : part;
}

interface SchemaMap {
  properties?: Record<string, { description?: string; $ref?: string }>;
  additionalProperties?: unknown;
}

function mapsIn(schema: unknown): SchemaMap[] {
  if (typeof schema !== "object" || schema === null) return [];
  return [schema, ...Object.values(schema).flatMap(mapsIn)];
}

describe("a file of the roster", () => {
  it("is an entry, with maps among its variables as JSON", () => {
    const entry = parseRosterEntry(changed("  env: {}\nendpoint", "  env: {A: {b: [1]}, C: d}\nendpoint"), "my-agent");
    expect(entry).toMatchObject({
      name: "my-agent",
      label: "Mistral Vibe",
      start: { env: { A: '{"b":[1]}', C: "d" } },
    });
    expect(Object.keys(entry)).not.toContain("roster_version");
  });

  it.each([
    ["prompt: stdin", "prompt: file", 'start.prompt must be one of stdin, argument, acp, not "file"'],
    ["prompt: stdin", "promt: stdin", "start.promt is not known; did you mean prompt?"],
    ["label: Mistral Vibe", "lable: Mistral Vibe", "lable is not known; did you mean label?"],
    ["label: Mistral Vibe", "", "label is missing"],
    ["  version: 3.0.2", "  version: 3.0", "install.version must be a text, not 3"],
    ["  version: 3.0.2", "  version: latest", 'install.version must match pattern "^'],
    ["  sizeMb: 397", "  sizeMb: 0", "install.sizeMb must be >= 1, and is 0 (Size on disk.)"],
    ["  sizeMb: 397", "  sizeMb: -.inf", "install.sizeMb must be "],
    ["  keys: [MISTRAL_API_KEY]", "  keys: MISTRAL_API_KEY", "endpoint.keys must be a list, not"],
    ["  keys: [MISTRAL_API_KEY]", "  keys: [A=B]", "endpoint.keys.0 must match pattern"],
    ["  inner: bin/vibe\n", "  inner: /bin/vibe\n", "program.inner must match pattern"],
    ["  inner: bin/vibe\n", "  inner: bin/../../vibe\n", "program.inner must match pattern"],
    ["      to: .env", "      to: ../.env", "home.credentials.0.to must match pattern"],
    [
      "home:\n",
      "home:\n  renames: [{folder: a, name: '(', to: 'x${n}'}]\n",
      'home.renames.0.name must match format "regex"',
    ],
    ["home:\n", "home:\n  renames: [{folder: a, name: b, to: x}]\n", "home.renames.0.to must match pattern"],
    ["  env: {}\nendpoint", "  env: {A: 1}\nendpoint", "start.env.A must be a text or a map or a list, not 1"],
    ["  env: {}\nendpoint", "  env: {1A: x}\nendpoint", "start.env.1A: the key must match pattern"],
    ["roster_version: 1", "roster_version: 2", "roster_version must be 1, not 2"],
    ["roster_version: 1", "", "roster_version is missing"],
    ["roster_version: 1", "roster_version: 1\nroster_version: 1", "is not YAML: Map keys must be unique"],
    ["roster_version: 1", "roster_version: [", "is not YAML: "],
  ])("with a fault is refused, naming the key and what is expected: %j → %j", (from, to, message) => {
    const error = thrown(() => parseRosterEntry(changed(from, to), "vibe"));
    expect(error).toBeInstanceOf(RosterError);
    expect((error as RosterError).message).toContain(message);
  });

  it.each(["", "- a", "text", "5"])("that is no map is refused: %j", (text) => {
    expect(() => parseRosterEntry(text, "vibe")).toThrow("must be a map of keys, not ");
  });

  it.each(["Vibe", "../vibe", "-x", "", "1a", "a".repeat(64)])("cannot be called %j", (name) => {
    expect(() => parseRosterEntry(VIBE, name)).toThrow("is no name of an agent");
  });

  it("extends another one", () => {
    const text = "roster_version: 1\nextends: vibe\nlabel: Mine\nnotes: [one]";
    const entry = parseRosterEntry(text, "mine", (name) => (name === "vibe" ? parsePart(VIBE) : undefined));
    expect(entry).toEqual({ ...parseRosterEntry(VIBE, "mine"), label: "Mine", notes: ["one"] });
    expect(() => parseRosterEntry(text, "mine")).toThrow('extends must name an agent of the roster, not "vibe"');
    expect(() => parseRosterEntry("extends: 5", "mine")).toThrow("extends must name an agent of the roster, not 5");
  });
});

describe("merged entries", () => {
  it.each([
    [{ a: 1 }, { a: 2 }, { a: 2 }],
    [{ a: { b: 1, c: { d: 2 } } }, { a: { c: { e: 3 } } }, { a: { b: 1, c: { d: 2, e: 3 } } }],
    [{ a: [1, 2] }, { a: [3] }, { a: [3] }],
    [{ a: { b: 1 } }, { a: [1] }, { a: [1] }],
    [{ a: [1] }, { a: { b: 1 } }, { a: { b: 1 } }],
    [{ a: { b: 1 } }, { a: null }, { a: null }],
    [{ a: 1 }, {}, { a: 1 }],
  ])("of %j and %j are %j", (base, override, both) => {
    expect(mergeEntries(base, override)).toEqual(both);
  });

  it("leave what they were made of as it was, and nothing behind in what all objects share", () => {
    const base = { a: { b: 1 } };
    mergeEntries(base, { a: { b: 2 } });
    expect(base).toEqual({ a: { b: 1 } });
    const both = mergeEntries(
      {},
      parseYaml("__proto__: {polluted: 1}\nconstructor: {prototype: {polluted: 1}}") as RosterPart,
    );
    expect(Object.keys(both)).toEqual(["__proto__", "constructor"]);
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  });

  it("are not nested without end", () => {
    const deep = parseYaml("{a: ".repeat(40) + "1" + "}".repeat(40)) as RosterPart;
    expect(() => mergeEntries(deep, deep)).toThrow("is nested more than 24 levels deep");
  });

  it("of the package fit without being looked at again", () => {
    for (const name of NAMES) expect(checkedEntry(wholeOf(name), name)).toEqual(entryOf(wholeOf(name), name));
  });
});

describe("a user's files", () => {
  it("are merged over ours, also below an agent that extends the one they change", () => {
    userFile("opencode.yaml", "program:\n  name: my-opencode\n");
    userFile("kisski.yaml", "endpoint:\n  keys: [MY_KEY]\n");
    const { entries, problems } = load();
    expect(problems).toEqual([]);
    const named = Object.fromEntries(entries.map((entry) => [entry.name, entry]));
    expect(named["kisski"]).toMatchObject({ program: { name: "my-opencode" }, endpoint: { keys: ["MY_KEY"] } });
    expect(named["openrouter"]).toMatchObject({ program: { name: "my-opencode" } });
    expect(named["claude"]?.program.name).toBe("claude");
  });

  it("add agents: whole ones, and ones that extend", () => {
    userFile("mine.yaml", VIBE.replace("Mistral Vibe", "Mine"));
    userFile("other.yaml", "roster_version: 1\nextends: mine\nlabel: Other\n");
    const { entries, problems } = load();
    expect(problems).toEqual([]);
    expect(entries.filter(({ name }) => ["mine", "other"].includes(name)).map(({ label }) => label)).toEqual([
      "Mine",
      "Other",
    ]);
  });

  it("that cannot be used are named with key and expectation, and take away nobody else", () => {
    const bad = userFile("codex.yaml", "program: {version_args: []}");
    const part = userFile("part.yaml", "roster_version: 1\nlabel: Part\n");
    const latin = userFile("latin.yaml", Buffer.from("label: caf\xe9", "latin1"));
    const big = userFile("big.yaml", `# ${"x".repeat(256 * 1024)}\n`);
    const lost = userFile("lost.yaml", "extends: nobody");
    const [a, b] = [userFile("a.yaml", "extends: b"), userFile("b.yaml", "extends: a")];
    const ending = userFile("vibe.yml", "");
    const upper = userFile("Upper.yaml", "");
    userFile("notes.txt", "");
    mkdirSync(join(userDir, "folder.yaml"));
    const { entries, problems } = load();
    expect(entries.map(({ name }) => name)).toEqual(NAMES.filter((name) => name !== "codex"));
    const messages = Object.fromEntries(problems.map(({ name, message }) => [name, message]));
    expect(messages).toEqual({
      codex: `${bad}: program.version_args is not known; did you mean versionArgs?`,
      part: expect.stringContaining(`${part}: executor is missing`),
      latin: `${latin}: is not UTF-8 text (line 1): save it as UTF-8`,
      big: expect.stringContaining(`${big}: has 2621`),
      lost: expect.stringMatching(/lost\.yaml: extends must be one of a, b, big, blablador, .*, not "nobody"/),
      a: `${a}: extends leads in a circle, or over too many agents`,
      b: `${b}: extends leads in a circle, or over too many agents`,
      vibe: `${ending}: not used; its name must end with .yaml`,
      Upper: expect.stringContaining(`${upper}: "Upper" is no name of an agent`),
      folder: `${join(userDir, "folder.yaml")}: it is a directory, not a file (EISDIR)`,
    });
    expect(lost).toContain("lost.yaml");
  });

  it("take away what extends the one that cannot be used", () => {
    const bad = userFile("opencode.yaml", "start: [");
    const { problems } = load();
    expect(problems.map(({ name }) => name)).toEqual(["blablador", "kisski", "opencode", "openrouter"]);
    for (const { message } of problems) expect(message).toContain(`${bad}: is not YAML: `);
  });

  it("need not exist; a folder that cannot be read is a problem", () => {
    expect(load().problems).toEqual([]);
    writeFileSync(userDir, "");
    expect(load().problems).toMatchObject([
      { name: userDir, message: expect.stringContaining(`the agents in ${userDir} cannot be read: `) },
    ]);
    expect(load().entries).toHaveLength(NAMES.length);
    rmSync(userDir);
    expect(load(join(dir, "gone")).problems).toMatchObject([{ name: join(dir, "gone") }]);
  });

  it.skipIf(process.getuid?.() === 0)("that may not be read are a problem", () => {
    chmodSync(userFile("codex.yaml", ""), 0);
    expect(load().problems).toMatchObject([{ name: "codex", message: expect.stringContaining("EACCES") }]);
  });

  it("are in XDG_CONFIG_HOME, else in the home", () => {
    expect(rosterDirs({ HOME: "/h" })).toEqual({ bundledDir: BUNDLED, userDir: "/h/.config/agent-runner/agents" });
    expect(rosterDirs({ HOME: "/h", XDG_CONFIG_HOME: "/c" }).userDir).toBe("/c/agent-runner/agents");
  });
});

describe("one agent", () => {
  it("is loaded without looking at files that do not concern it", () => {
    userFile("codex.yaml", "[");
    expect(loadEntry("vibe", { bundledDir: BUNDLED, userDir })).toEqual(parseRosterEntry(VIBE, "vibe"));
  });

  it.each([
    ["vipe", 'agent must be one of the roster, not "vipe"; did you mean vibe?'],
    ["something-else", `agent must be one of the roster, not "something-else"; known: ${NAMES.join(", ")}`],
    ["../vibe", 'not "../vibe"; '],
    ["codex", "codex.yaml: is not YAML: "],
  ])("%s that cannot be had is BAD_CONFIG", (name, message) => {
    userFile("codex.yaml", "[");
    const error = thrown(() => loadEntry(name, { bundledDir: BUNDLED, userDir }));
    expect(error).toBeInstanceOf(AgentError);
    expect((error as AgentError).reason).toBe("BAD_CONFIG");
    expect((error as AgentError).message).toContain(message);
  });
});
