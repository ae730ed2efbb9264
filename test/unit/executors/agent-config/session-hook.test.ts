import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { sessionHookCommand, withSessionHook } from "../../../../executors/lib/agent-config/session-hook.ts";
import { put, refusal, tempFolder } from "../../../support/agent-config.ts";

const FILE = "claude-session.txt";
const COMMAND = sessionHookCommand("/home/dev/.terok", FILE);
/** What stands in settings that an earlier program has written. */
const FIRST_VERSION = `python3 -c "import json,sys; print(json.load(sys.stdin)['session_id'])" > /home/dev/.terok/${FILE}`;

const edit = (text?: string) => withSessionHook(text, COMMAND, FILE);
const entry = (command: string) => ({ hooks: [{ type: "command", command }] });
const settings = (...entries: unknown[]) => JSON.stringify({ hooks: { SessionStart: entries } });

describe("the hook in settings.json", () => {
  it("creates settings.json with SessionStart whose command mentions session_id", () => {
    for (const text of [undefined, "", " \n"]) {
      expect(JSON.parse(edit(text).text)).toEqual({ hooks: { SessionStart: [entry(COMMAND)] } });
    }
    expect(COMMAND).toContain("session_id");
  });

  it("merges, keeping existing permissions, other hooks and their order", () => {
    const other = { matcher: "startup", hooks: [{ type: "command", command: "echo hi" }] };
    const before = { permissions: { allow: ["Read"] }, hooks: { Stop: [], SessionStart: [other] }, last: 1 };
    const { text, lost } = edit(JSON.stringify(before));
    expect(lost).toEqual([]);
    expect(JSON.parse(text)).toEqual({ ...before, hooks: { Stop: [], SessionStart: [other, entry(COMMAND)] } });
    expect(Object.keys(JSON.parse(text) as object)).toEqual(["permissions", "hooks", "last"]);
  });

  it("twice ⇒ one entry", () => {
    const { text } = edit('{"permissions":{}}');
    expect(edit(text).text).toBe(text);
  });

  it("equivalent hook present ⇒ file byte-identical", () => {
    const compact = settings({ matcher: "x", hooks: [{ command: COMMAND }] });
    expect(edit(compact).text).toBe(compact);
  });

  it("an earlier version is replaced, wherever it stands, and not joined", () => {
    const older = COMMAND.replace(/:\d+$/, ":1");
    const mixed = settings(entry(FIRST_VERSION), { hooks: [{ command: "keep" }, { command: older }] }, entry(older));
    expect(JSON.parse(edit(mixed).text)).toEqual({
      hooks: { SessionStart: [entry(COMMAND), { hooks: [{ command: "keep" }] }] },
    });
    const both = settings(entry(FIRST_VERSION), entry(COMMAND));
    expect(JSON.parse(edit(both).text)).toEqual({ hooks: { SessionStart: [entry(COMMAND)] } });
  });

  it("comments, tabs and line ends stay", () => {
    const { text } = edit('{\r\n\t// mine\r\n\t"hooks": {"SessionStart": [ /* none */ ]},\r\n}\r\n');
    expect(text).toContain("// mine");
    expect(text).toContain("/* none */");
    expect(text.replaceAll("\r\n", "")).not.toContain("\n");
  });

  it.each([
    ['{"hooks":"string hooks"}', "shared-value-replaced"],
    ['{"hooks":{"SessionStart":{}}}', "shared-value-replaced"],
    ["{broken", "shared-file-replaced"],
    ["[1]", "shared-file-replaced"],
  ])("what cannot be kept of %s is said", (before, code) => {
    const { text, lost } = edit(before);
    expect(JSON.parse(text)).toEqual({ hooks: { SessionStart: [entry(COMMAND)] } });
    expect(lost.map((loss) => loss.code)).toEqual([code]);
  });

  it("null is nothing, and nothing is lost with it", () => {
    for (const before of ['{"hooks":null}', '{"hooks":{"SessionStart":null}}']) {
      expect(edit(before).lost).toEqual([]);
      expect(JSON.parse(edit(before).text)).toEqual({ hooks: { SessionStart: [entry(COMMAND)] } });
    }
  });

  it("a key that is there twice is refused", () => {
    expect(refusal(() => edit('{"hooks":{},"hooks":{"Stop":[]}}')).message).toContain("twice");
  });
});

const noPython = spawnSync("python3", ["--version"]).status === 0 ? undefined : "python3 is not there";

describe("the command of the hook", () => {
  const run = (folder: string, input: string) =>
    spawnSync("sh", ["-c", sessionHookCommand(folder, FILE)], { input, encoding: "utf8" });

  it("writes the id, and keeps the one that is there when it gets none", ({ skip }) => {
    if (noPython !== undefined) skip(noPython);
    const folder = join(tempFolder(), "it's here");
    mkdirSync(folder);
    expect(run(folder, '{"session_id":"abc"}').status).toBe(0);
    expect(readFileSync(join(folder, FILE), "utf8")).toBe("abc\n");
    expect(run(folder, "no json").status).not.toBe(0);
    expect(readFileSync(join(folder, FILE), "utf8")).toBe("abc\n");
    expect(readdirSync(folder)).toEqual([FILE]);
  });

  it("does nothing where there is no folder of a task, and takes the place of what the first version wrote", ({
    skip,
  }) => {
    if (noPython !== undefined) skip(noPython);
    const folder = join(tempFolder(), "none");
    expect(run(folder, '{"session_id":"abc"}').status).toBe(0);
    expect(existsSync(folder)).toBe(false);
    put(join(folder, FILE), "old\n");
    execFileSync("sh", ["-c", sessionHookCommand(folder, FILE)], { input: '{"session_id":"new"}' });
    expect(readFileSync(join(folder, FILE), "utf8")).toBe("new\n");
  });
});
