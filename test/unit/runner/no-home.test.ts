import type * as Os from "node:os";
import { describe, expect, it, vi } from "vitest";
import { UsageError } from "../../../lib/config/config.ts";
import { parseRunnerOptions } from "../../../runner/config.ts";
import { find, resolveSettings } from "../../../runner/settings/resolve-settings.ts";

vi.mock("node:os", async (original) => ({
  ...(await original<typeof Os>()),
  homedir: () => {
    throw new Error("uv_os_homedir returned ENOENT (no such file or directory)");
  },
}));

function settings(argv: string[], env: Record<string, string> = {}) {
  const flags = ["-x", "test-executor", "--project-dir", "/tmp", ...argv];
  const parsed = parseRunnerOptions(flags, env, () => undefined);
  if (parsed.type !== "config") throw new Error(parsed.text);
  return resolveSettings(parsed.config, find(parsed.config), "/tmp");
}

describe("a runner whose user has no home", () => {
  it("says what to set, when it needs a state directory", () => {
    expect(() => settings([])).toThrow(UsageError);
    expect(() => settings([])).toThrow(
      /no home.*HOME is not set[^]*set HOME or XDG_STATE_HOME, or give --state-dir DIR/,
    );
  });

  it.each([
    ["HOME", [], { HOME: "/h" }, "/h/.local/state/agent-runner"],
    ["XDG_STATE_HOME", [], { XDG_STATE_HOME: "/s" }, "/s/agent-runner"],
    ["--state-dir", ["--state-dir", "/d"], {}, "/d"],
  ])("needs none with %s", (_, argv, env, dir) => {
    expect(settings(argv, env).stateDir).toBe(dir);
  });

  it.each(["--help", "--version", "--check-config"])("answers %s", (flag) => {
    expect(parseRunnerOptions([flag], {}, () => undefined).type).toBe("text");
  });
});
