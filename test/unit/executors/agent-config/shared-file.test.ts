import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { withOpencodeInstructions } from "../../../../executors/lib/agent-config/opencode-instructions.ts";
import { applyShared, planShared } from "../../../../executors/lib/agent-config/shared-file.ts";
import { codes, json, put, refusal, tempFolder } from "../../../support/agent-config.ts";

const FILE = "_x-config/opencode/opencode.json";
const PATH = "/home/dev/.terok/instructions.md";

function edit(base: string) {
  const plan = planShared(base, { file: FILE, edit: (text) => withOpencodeInstructions(text, PATH) });
  return { plan, result: applyShared(plan) };
}

describe("a file that all tasks share", () => {
  it("is made with its folders, for its owner alone", () => {
    const base = tempFolder();
    const { path } = edit(base).result;
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(join(base, "_x-config")).mode & 0o777).toBe(0o700);
    expect(readdirSync(join(base, "_x-config/opencode"))).toEqual(["opencode.json"]);
  });

  it("keeps its mode, and is not touched when it is right", () => {
    const base = tempFolder();
    const path = put(join(base, FILE), "{}");
    chmodSync(path, 0o644);
    expect(edit(base).result.changed).toBe(true);
    expect(statSync(path).mode & 0o777).toBe(0o644);
    const { ino } = statSync(path);
    expect(edit(base).result).toEqual({ path, changed: false });
    expect(statSync(path).ino).toBe(ino);
  });

  it.each([
    ["invalid JSON", "{ my: settings", "shared-file-replaced"],
    ["bytes that are no text", Uint8Array.of(0x7b, 0xe4, 0x7d), "shared-file-replaced"],
    ["a value of the wrong type", '{"instructions": 5, "model": "m"}', "shared-value-replaced"],
  ])("is kept beside the new one when it holds %s", (_, content, code) => {
    const base = tempFolder();
    const path = put(join(base, FILE), content);
    const { plan, result } = edit(base);
    expect(plan.diagnostics).toMatchObject([{ code, severity: "warning", file: path }]);
    expect(result.backup).toMatch(/opencode\.json\.bak-2/);
    expect(readFileSync(result.backup ?? "")).toEqual(Buffer.from(content));
    expect(json(path)["instructions"]).toEqual([PATH]);
  });

  it("that is a link is replaced, and what it leads to neither read nor written", () => {
    const base = tempFolder();
    const secret = put(join(base, "secret.json"), '{"token":"x"}');
    mkdirSync(join(base, "_x-config/opencode"), { recursive: true });
    symlinkSync(secret, join(base, FILE));
    const { plan, result } = edit(base);
    expect(codes(plan.diagnostics)).toEqual(["shared-link-replaced"]);
    expect(result.backup).toBeUndefined();
    expect(lstatSync(join(base, FILE)).isSymbolicLink()).toBe(false);
    expect(readFileSync(join(base, FILE), "utf8")).not.toContain("token");
    expect(readFileSync(secret, "utf8")).toBe('{"token":"x"}');
  });

  it("below a link that a container can make is refused, and below one of the person is not", () => {
    const base = tempFolder();
    mkdirSync(join(base, "elsewhere"));
    mkdirSync(join(base, "_x-config"));
    symlinkSync(join(base, "elsewhere"), join(base, "_x-config/opencode"));
    expect(codes(refusal(() => edit(base)).diagnostics)).toEqual(["unsafe-path"]);
    const other = tempFolder();
    mkdirSync(join(other, "mine"));
    symlinkSync(join(other, "mine"), join(other, "_x-config"));
    expect(edit(other).result.changed).toBe(true);
  });

  it("that is no file, or too large, is refused", () => {
    const base = tempFolder();
    mkdirSync(join(base, FILE), { recursive: true });
    expect(refusal(() => edit(base)).message).toContain("no regular file");
    const other = tempFolder();
    put(join(other, FILE), " ".repeat(4 * 1024 * 1024 + 1));
    expect(refusal(() => edit(other)).message).toContain("a configuration may have");
  });

  it("with a key that is there twice is refused by its name", () => {
    const base = tempFolder();
    put(join(base, FILE), '{"instructions":[],"instructions":["x"]}');
    expect(refusal(() => edit(base)).message).toMatch(/opencode\.json: has the key instructions twice/);
  });

  it.skipIf(process.getuid?.() === 0)("in a folder that cannot be written says whose it is to be", () => {
    const base = tempFolder();
    mkdirSync(join(base, "_x-config/opencode"), { recursive: true });
    writeFileSync(join(base, FILE), "{}");
    chmodSync(join(base, "_x-config/opencode"), 0o500);
    expect(refusal(() => edit(base)).message).toContain("chown");
  });
});
