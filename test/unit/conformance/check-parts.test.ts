import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { declarationOf, formed, parseDeclaration } from "../../../conformance/declaration.ts";
import { differences, snapshotOf } from "../../../conformance/home-snapshot.ts";
import { awkward, dashed, ofSize } from "../../../conformance/prompts.ts";
import type { ListedAgent } from "../../../cli/programs.ts";
import { executorRows, pointText, totals } from "../../../cli/text/executors.ts";
import { plain } from "../../../cli/text/format.ts";

let dir: string;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "check-parts-"))));
afterEach(() => rmSync(dir, { recursive: true }));

describe("a snapshot of a home", () => {
  it("tells what is new, changed and gone", () => {
    mkdirSync(join(dir, "sub"));
    for (const name of ["same", "mode", "sub/text", "gone"]) writeFileSync(join(dir, name), name, { mode: 0o600 });
    symlinkSync("same", join(dir, "link"));
    const before = snapshotOf(dir);
    expect(differences(before, snapshotOf(dir))).toEqual([]);
    chmodSync(join(dir, "mode"), 0o644);
    writeFileSync(join(dir, "sub/text"), "other");
    rmSync(join(dir, "gone"));
    rmSync(join(dir, "link"));
    symlinkSync("mode", join(dir, "link"));
    mkdirSync(join(dir, "added/below"), { recursive: true });
    expect(differences(before, snapshotOf(dir)).sort()).toEqual([
      "changed link",
      "changed mode",
      "changed sub/text",
      "gone gone",
      "new added with 1 in it, such as added/below",
    ]);
  });
});

describe("check.json", () => {
  it("puts the text into its form, wherever that has its place", () => {
    expect(formed('a "b"', undefined)).toBe('a "b"');
    expect(formed('a "b" $&', "do: ${prompt}")).toBe('do: a "b" $&');
    expect(formed("x", { say: ["${prompt}", 1], deep: { n: null, t: "<${prompt}>" } })).toBe(
      '{"say":["x",1],"deep":{"n":null,"t":"<x>"}}',
    );
  });

  it("is optional, and read beside the program", () => {
    expect(declarationOf(join(dir, "program"))).toEqual({});
    writeFileSync(join(dir, "check.json"), '{"slow": "sleep"}');
    expect(declarationOf(join(dir, "program"))).toEqual({ slow: "sleep" });
    writeFileSync(join(dir, "check.json"), Buffer.from([0xff]));
    expect(() => declarationOf(join(dir, "program"))).toThrow("check.json cannot be read");
    writeFileSync(join(dir, "check.json"), " ".repeat(70_000));
    expect(() => declarationOf(join(dir, "program"))).toThrow("has 70000 bytes");
  });

  it.each([
    ["{", "f: "],
    ["[]", "f: must be a JSON object"],
    ['{"prompt": "x"}', 'f: "prompt" must be a JSON value with ${prompt} in it'],
    ['{"slow": 1}', 'f: "slow" must be a text or an object'],
    ['{"config": []}', 'f: "config" must be an object'],
    ['{"toString": 1}', 'f: "toString" is not known'],
  ])("is refused when it is %s", (text, message) => {
    expect(() => parseDeclaration(text, "f")).toThrow(message);
  });
});

describe("prompts of the check", () => {
  it("have their script where it is found, and the size that was asked for", () => {
    expect(Buffer.byteLength(ofSize(1_000_000, "W"))).toBe(1_000_000);
    expect(ofSize(1000, "W")).toMatch(/\[\[text:W\]\]$/);
    expect(dashed("W")).toMatch(/^-x .*\[\[text:W\]\]$/);
    expect(awkward("W")).toMatch(/\[\[text:W\]\]\n$/);
  });
});

describe("the list of executors", () => {
  const agent = { label: "An agent", ready: false, version: "1.2.3", install: "npm install @x/agent@1.2.3" };
  const driver = { name: "drive", path: "/package/drive/ao-drive-exec", source: "/package" };
  const rows = (agent: ListedAgent) =>
    executorRows(
      { executors: [{ ...driver, name: "a-one", agent }, driver, { name: "mine", path: "/m/x", source: "/more" }] },
      "/package",
    );

  it("says where each is from, executors first", () => {
    expect(rows(agent)).toMatchObject([
      { name: "drive", kind: "executor", source: "package", installed: true, install: "" },
      { name: "mine", kind: "executor", source: "/more", path: "/m/x" },
      { name: "a-one", kind: "agent", source: "by drive" },
    ]);
  });

  it("says which agents are installed, and the command for the others", () => {
    expect(rows(agent)[2]).toMatchObject({ path: "", installed: false, install: agent.install });
    expect(rows({ ...agent, program: "/bin/agent" })[2]).toMatchObject({
      path: "/bin/agent",
      installed: true,
      install: "",
    });
  });
});

describe("the page of a check", () => {
  const point = { name: "resume", title: "goes on", detail: "seen", known: "", duration_ms: 1 };

  it("says what was seen, and which failure is known", () => {
    expect(pointText({ ...point, status: "pass" }, plain, 100)).toBe("PASS  resume             seen");
    expect(pointText({ ...point, status: "fail", known: "it forgets" }, plain, 100)).toBe(
      "FAIL  resume             goes on: no. seen (known: it forgets)",
    );
    expect(pointText({ ...point, status: "skip", detail: "a\u001b[2Jb" }, plain, 100)).toContain("a\\x1b[2Jb");
  });

  it("counts", () => {
    const points = (["pass", "pass", "fail", "skip"] as const).map((status) => ({ ...point, status }));
    expect(totals([...points, { ...point, status: "fail", known: "k" }])).toBe(
      "2 passed, 1 failed, 1 known to fail, 1 skipped",
    );
    expect(totals([{ ...point, status: "pass" }])).toBe("1 passed");
  });
});
