import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CONTAINER_PATHS } from "../../../../executors/lib/agent-config/container-paths.ts";
import type { Diagnostic } from "../../../../executors/lib/agent-config/diagnostics.ts";
import {
  bundledDefaultInstructions,
  hasCustomInstructions,
  resolveInstructions,
} from "../../../../executors/lib/agent-config/instructions.ts";
import { codes, put, tempFolder } from "../../../support/agent-config.ts";

const BUNDLED = bundledDefaultInstructions();

describe("the bundled default", () => {
  it("exists, >100 chars, mentions terok", () => {
    expect(BUNDLED.length).toBeGreaterThan(100);
    expect(BUNDLED).toContain("terok");
    expect(BUNDLED).toContain("container");
  });

  it("mentions workspace, sudo, git, and the paths that it is given", () => {
    for (const word of ["/workspace/", "sudo", "git", "/home/dev/.terok/work-status.yml"]) {
      expect(BUNDLED).toContain(word);
    }
    expect(bundledDefaultInstructions({ ...CONTAINER_PATHS, workspace: "/src" })).toContain("`/src/`");
    expect(BUNDLED).not.toContain("${");
  });
});

describe("resolveInstructions", () => {
  it.each([
    ["flat string", { instructions: "Do the thing." }, "Do the thing."],
    ["provider map", { instructions: { claude: "Claude's", _default: "Default" } }, "Claude's"],
    ["missing key", {}, BUNDLED],
    ["null", { instructions: null }, BUNDLED],
    ["[_inherit, extra]", { instructions: ["_inherit", "Extra text."] }, `${BUNDLED}\n\nExtra text.`],
    ["bare _inherit", { instructions: "_inherit" }, BUNDLED],
    ["map without a match", { instructions: { codex: "x" } }, BUNDLED],
    ["map with a list", { instructions: { claude: ["a", "_inherit"] } }, `a\n\n${BUNDLED}`],
    ["map with _inherit", { instructions: { claude: "_inherit" } }, BUNDLED],
    ["empty list", { instructions: [] }, ""],
    ["empty text", { instructions: "" }, ""],
    ["numbers", { instructions: [1, 2] }, "1\n\n2"],
  ])("resolution: %s", (_, config, expected) => {
    expect(resolveInstructions(config, "claude")).toBe(expected);
  });

  it("file appended to default", () => {
    const projectRoot = tempFolder();
    put(join(projectRoot, "instructions.md"), "\nProject notes.\n");
    expect(resolveInstructions({}, "claude", { projectRoot })).toBe(`${BUNDLED}\n\nProject notes.`);
    expect(resolveInstructions({ instructions: "" }, "claude", { projectRoot })).toBe("Project notes.");
  });

  it("no file ⇒ YAML only", () => {
    expect(resolveInstructions({ instructions: "base" }, "claude", { projectRoot: tempFolder() })).toBe("base");
  });

  it("whitespace-only file ignored", () => {
    const projectRoot = tempFolder();
    put(join(projectRoot, "instructions.md"), "  \n  ");
    expect(resolveInstructions({ instructions: "base" }, "claude", { projectRoot })).toBe("base");
  });

  it("a file that cannot be read is not used, and said", () => {
    const projectRoot = tempFolder();
    put(join(projectRoot, "instructions.md"), Uint8Array.of(0xff, 0xfe, 0x41));
    const diagnostics: Diagnostic[] = [];
    expect(resolveInstructions({ instructions: "base" }, "claude", { projectRoot, diagnostics })).toBe("base");
    expect(codes(diagnostics)).toEqual(["instructions-unreadable"]);
  });
});

describe("hasCustomInstructions", () => {
  it("from config", () => expect(hasCustomInstructions({ instructions: "Custom" })).toBe(true));
  it("empty false", () => expect(hasCustomInstructions({})).toBe(false));

  it("file true", () => {
    const root = tempFolder();
    put(join(root, "instructions.md"), "");
    expect(hasCustomInstructions({}, root)).toBe(true);
  });

  it("no file false", () => expect(hasCustomInstructions({ instructions: null }, tempFolder())).toBe(false));
  it("missing root false", () => expect(hasCustomInstructions({}, "/nonexistent/root")).toBe(false));
});
