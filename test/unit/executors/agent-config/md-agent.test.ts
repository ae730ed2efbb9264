import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parseMdAgent } from "../../../../executors/lib/agent-config/md-agent.ts";
import type { Diagnostic } from "../../../../executors/lib/agent-config/diagnostics.ts";
import { put, tempFolder } from "../../../support/agent-config.ts";

function parse(content: string | Uint8Array) {
  return parseMdAgent(put(join(tempFolder(), "agent.md"), content));
}

/** Code and line of each. */
function said(diagnostics: readonly Diagnostic[]) {
  return diagnostics.map(({ code, line }) => (line === undefined ? code : `${code}:${line}`));
}

describe("parseMdAgent", () => {
  it("frontmatter + body parsed", () => {
    const text = "---\nname: test\ndescription: D\ntools: [Read, Grep]\n---\n\nPrompt body.\n";
    expect(parse(text)).toEqual({
      agent: { name: "test", description: "D", tools: ["Read", "Grep"], prompt: "Prompt body." },
      diagnostics: [],
    });
  });

  it("no frontmatter ⇒ whole file is prompt", () => {
    expect(parse("\nJust a prompt.\n")).toEqual({ agent: { prompt: "Just a prompt." }, diagnostics: [] });
    expect(parse("")).toEqual({ agent: { prompt: "" }, diagnostics: [] });
  });

  it("nonexistent file ⇒ empty agent, and said", () => {
    const { agent, diagnostics } = parseMdAgent(join(tempFolder(), "none.md"));
    expect(agent).toEqual({});
    expect(said(diagnostics)).toEqual(["agent-file-missing"]);
    expect(parseMdAgent(tempFolder())).toMatchObject({ agent: {}, diagnostics: [{ code: "agent-file-missing" }] });
  });

  it.each([
    ["empty frontmatter", "---\n---\nbody", { prompt: "body" }, []],
    ["frontmatter, no body", "---\nname: a\n---", { name: "a", prompt: "" }, []],
    ["CRLF", "---\r\nname: a\r\n---\r\none\r\ntwo\r\n", { name: "a", prompt: "one\ntwo" }, []],
    ["a byte order mark", "\ufeff---\nname: a\n---\nbody", { name: "a", prompt: "body" }, []],
    ["--- inside a value", "---\ndescription: x --- y\n---\nbody", { description: "x --- y", prompt: "body" }, []],
    ["a rule inside the body", "---\nname: a\n---\none\n---\ntwo", { name: "a", prompt: "one\n---\ntwo" }, []],
    ["---- first", "----\ntext", { prompt: "----\ntext" }, []],
    ["system_prompt beside the body", "---\nsystem_prompt: s\n---\nb", { system_prompt: "s", prompt: "b" }, []],
    ["words of YAML 1.1", "---\ndefault: no\n---\nb", { default: "no", prompt: "b" }, []],
    ["a date", "---\nmemory: 2026-01-02\n---\nb", { memory: "2026-01-02", prompt: "b" }, []],
    ["prompt in the frontmatter", "---\nprompt: x\n---\nb", { prompt: "b" }, ["agent-prompt-overridden:1"]],
    ["non-object frontmatter: list", "---\n- a\n---\nb", { prompt: "b" }, ["frontmatter-not-a-map:2"]],
    ["non-object frontmatter: scalar", "---\nword\n---\nb", { prompt: "b" }, ["frontmatter-not-a-map:2"]],
    ["a newline before it", "\n---\nname: a\n---\nb", { prompt: "---\nname: a\n---\nb" }, ["frontmatter-misplaced:2"]],
    ["all on one line", "--- name: a --- b", { prompt: "--- name: a --- b" }, ["frontmatter-misplaced:1"]],
    ["only ---", "---", {}, ["frontmatter-unterminated:1"]],
    ["one delimiter", "---\nname: a\nbody", {}, ["frontmatter-unterminated:1"]],
    ["malformed YAML", "---\nname: a\ntools: [Read\n---\nb", {}, ["frontmatter-invalid:3"]],
    ["a duplicate key", "---\nname: a\nname: b\n---\nb", {}, ["frontmatter-invalid:3"]],
    ["an unquoted a: b: c", "---\nname: a\ndescription: a: b: c\n---\nb", {}, ["frontmatter-invalid:3"]],
    ["an alias to nothing", "---\nname: *x\n---\nb", {}, ["frontmatter-invalid:2"]],
  ])("reads %s", (_, text, agent, diagnostics) => {
    const parsed = parse(text);
    expect(parsed.agent).toEqual(agent);
    expect([...new Set(said(parsed.diagnostics))]).toEqual(diagnostics);
  });

  it("says where bytes are no text, and does not read what is too large", () => {
    const bytes = Buffer.concat([Buffer.from("---\nname: "), Buffer.from([0xe4, 0x0a]), Buffer.from("---\n")]);
    expect(said(parse(bytes).diagnostics)).toEqual(["agent-file-not-text:2"]);
    expect(said(parse("x".repeat(1024 * 1024 + 1)).diagnostics)).toEqual(["agent-file-too-large"]);
  });

  it("names the file in everything that it says, and what cannot be opened", () => {
    const file = put(join(tempFolder(), "a.md"), "x");
    const { diagnostics } = parseMdAgent(join(file, "b.md"));
    expect(diagnostics).toMatchObject([{ code: "agent-file-unreadable", severity: "error", file: join(file, "b.md") }]);
  });
});
