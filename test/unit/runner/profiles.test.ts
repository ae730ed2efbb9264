import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Discovery } from "../../../runner/settings/discovery.ts";
import { findProfile, listProfiles, ProfileError, profilesDir } from "../../../runner/settings/profiles.ts";

let root: string;
let dir: string;
let discovery: Discovery;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "profiles-"));
  dir = profilesDir(root);
  mkdirSync(dir, { recursive: true });
  const path = join(root, "ao-echo-exec");
  writeFileSync(path, "#!/bin/sh\n");
  chmodSync(path, 0o755);
  discovery = { executors: [{ name: "echo", path, source: root }], problems: [] };
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

function write(name: string, content: unknown, where = dir): string {
  mkdirSync(where, { recursive: true });
  const file = join(where, `${name}.json`);
  writeFileSync(file, typeof content === "string" || Buffer.isBuffer(content) ? content : JSON.stringify(content));
  return file;
}

describe("profiles", () => {
  it("are named after their files, and take the executor of their type", () => {
    const file = write("small", { type: "echo" });
    write("notes.txt", "", join(dir, "folder"));
    expect(listProfiles([dir], discovery)).toEqual({
      profiles: [
        {
          name: "small",
          file,
          type: "echo",
          command: join(root, "ao-echo-exec"),
          config: {},
          portable: false,
          env: [],
          tags: [],
        },
      ],
      problems: [],
    });
  });

  it("may name a program relative to their file, and everything else", () => {
    const all = { type: "custom", config: { model: "m", deep: [1] }, portable: true, env: ["API_KEY"], tags: ["gpu"] };
    write("full", { ...all, command: "../../ao-echo-exec" });
    const profile = findProfile(listProfiles([dir], discovery), "full");
    expect(profile).toMatchObject({ ...all, command: join(root, "ao-echo-exec") });
  });

  it("may say how long their executor may be silent", () => {
    write("slow", { type: "echo", idle_timeout: "2h" });
    write("silent", { type: "echo", idle_timeout: "0" });
    const { profiles } = listProfiles([dir], discovery);
    expect(profiles.map(({ idleTimeoutMs }) => idleTimeoutMs)).toEqual([0, 7_200_000]);
  });

  it("may begin with a byte order mark", () => {
    write("notepad", '\ufeff{"type":"echo"}');
    expect(listProfiles([dir], discovery).profiles).toMatchObject([{ name: "notepad", type: "echo" }]);
  });

  it("are none where there is no directory", () => {
    expect(listProfiles([join(root, "gone")], discovery)).toEqual({ profiles: [], problems: [] });
  });

  it("come from the first directory that has the name, and the other is reported", () => {
    const more = join(root, "more");
    const first = write("x", { type: "echo" });
    const second = write("x", { type: "echo", portable: true }, more);
    const { profiles, problems } = listProfiles([dir, more], discovery);
    expect(profiles).toMatchObject([{ file: first, portable: false }]);
    expect(problems).toEqual([{ name: "x", message: `${second}: not used: ${first} has the name "x" already` }]);
  });

  it.each([
    ["not JSON", "{", /JSON/],
    ["a list", [], /must be a JSON object$/],
    ["no type", {}, /"type" is missing; it must be a string of 1 to 256 characters$/],
    ["a type that is a number", { type: 5 }, /"type" must be a string of 1 to 256 characters, not 5$/],
    [
      "a key that is not known",
      { type: "echo", cmd: "x" },
      /"cmd" is not known; known: type, command, config, portable, env, tags, idle_timeout$/,
    ],
    ["an inherited key", `{"type":"echo","toString":1}`, /"toString" is not known/],
    ["a config that is a list", { type: "echo", config: [1] }, /"config" must be an object, not \[1\]$/],
    ["a portable that is a string", { type: "echo", portable: "yes" }, /"portable" must be true or false, not "yes"$/],
    ["a secret in env", { type: "echo", env: ["AGENT_*"] }, /"env": "AGENT_\*" would hand on AGENT_ORCHESTRATOR_TOKEN/],
    [
      "a value in env",
      { type: "echo", env: ["A=1"] },
      /"env" must be a list of names of environment variables, or of beginnings such as UV_\*, not \["A=1"\]$/,
    ],
    [
      "an idle timeout without a unit",
      { type: "echo", idle_timeout: "10" },
      /"idle_timeout" must be a duration such as .*, not "10"$/,
    ],
    [
      "an idle timeout that is a number",
      { type: "echo", idle_timeout: 10 },
      /"idle_timeout" must be a duration .*, not 10$/,
    ],
    ["a tag twice", { type: "echo", tags: ["a", "a"] }, /"tags" must be a list of at most 64 different strings/],
    ["a long wrong value", { type: "echo", tags: "x".repeat(500) }, /not "x{59}…$/],
    ["a type without executor", { type: "nope" }, /no executor is named "nope"; found: echo/],
    ["a command that is not there", { type: "x", command: "gone" }, /"command": executor .*\/gone does not exist/],
    [
      "a large integer",
      `{"type":"echo","config":{"id":1029384756610293847}}`,
      /1029384756610293847 .*write it as a string$/,
    ],
    [
      "a deep config",
      `{"type":"echo","config":${'{"a":'.repeat(25)}1${"}".repeat(25)}}`,
      /"config": nested more than 24/,
    ],
    ["Latin-1", Buffer.from('{"type":"caf\xe9"}', "latin1"), /: is not UTF-8 text \(line 1\)/],
    ["too many bytes", `{"type":"echo"}${" ".repeat(300_000)}`, /has 300015 bytes; at most 262144 are read$/],
  ])("with %s are reported with file and key, beside the good ones", (_, content, message) => {
    const file = write("bad", content);
    write("good", { type: "echo" });
    const list = listProfiles([dir], discovery);
    expect(list.profiles.map(({ name }) => name)).toEqual(["good"]);
    expect(list.problems).toHaveLength(1);
    expect(list.problems[0]?.message).toMatch(message);
    expect(list.problems[0]?.message.startsWith(`${file}: `)).toBe(true);
    expect(() => findProfile(list, "bad")).toThrow(message);
  });

  it("that are not there are answered with those that are", () => {
    write("a", { type: "echo" });
    expect(() => findProfile(listProfiles([dir], discovery), "b")).toThrow(ProfileError);
    expect(() => findProfile(listProfiles([dir], discovery), "b")).toThrow(
      'no executor profile is named "b"; found: a',
    );
    expect(() => findProfile({ profiles: [], problems: [] }, "b")).toThrow("found: none");
  });
});
