import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  discoverExecutors,
  ExecutorError,
  findExecutor,
  profileNameOf,
  resolveExecutorPath,
} from "../../runner/settings/discovery.ts";

let dir: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "discovery-"));
});

afterEach(() => rmSync(dir, { recursive: true, force: true }));

function program(path: string, mode = 0o755): string {
  const file = join(dir, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, "#!/bin/sh\n");
  chmodSync(file, mode);
  return file;
}

describe("discovery", () => {
  it("finds the ao-*-exec of every folder, by the folder's name, in the package and then elsewhere", () => {
    const test = program("executors/test-executor/ao-test-exec");
    const mine = program("mine/my-own/ao-my-own-exec");
    program("executors/lib/helper");
    program("executors/README.md");
    expect(discoverExecutors(join(dir, "executors"), [join(dir, "mine")])).toEqual({
      executors: [
        { name: "my-own", path: mine, source: join(dir, "mine") },
        { name: "test-executor", path: test, source: join(dir, "executors") },
      ],
      problems: [],
    });
  });

  it("finds none in a package without executors", () => {
    expect(discoverExecutors(join(dir, "gone"))).toEqual({ executors: [], problems: [] });
  });

  it("says which directory that was asked for is not there", () => {
    const { problems } = discoverExecutors(join(dir, "gone"), [join(dir, "gone")]);
    expect(problems).toHaveLength(1);
    expect(problems[0]?.message).toMatch(/executors directory .*\/gone cannot be read: it does not exist \(ENOENT\)/);
  });

  it("refuses two programs in one folder, and names both", () => {
    const [a, b] = [program("e/x/ao-a-exec"), program("e/x/ao-b-exec")];
    const found = discoverExecutors(join(dir, "e"));
    expect(found.executors).toEqual([]);
    expect(found.problems).toEqual([
      { name: "x", message: `${a} and ${b} are two executors in one folder; move one to a folder of its own` },
    ]);
    expect(() => findExecutor(found, "x")).toThrow(ExecutorError);
  });

  it("asks for the executable bit with the command that sets it, and passes over a sibling without it", () => {
    const path = program("e/x/ao-x-exec", 0o644);
    program("e/y/ao-old-exec", 0o644);
    const y = program("e/y/ao-y-exec");
    const found = discoverExecutors(join(dir, "e"));
    expect(found.executors).toMatchObject([{ name: "y", path: y }]);
    expect(() => findExecutor(found, "x")).toThrow(`executor ${path} is not executable; run: chmod +x ${path}`);
  });

  it("lets no later folder replace an earlier one of the same name, and says so", () => {
    const first = program("a/x/ao-x-exec");
    const second = program("b/x/ao-x-exec");
    const found = discoverExecutors(join(dir, "a"), [join(dir, "b")]);
    expect(findExecutor(found, "x").path).toBe(first);
    expect(found.problems).toEqual([
      { name: "x", message: `executor ${second} is not used: ${first} has the name "x" already` },
    ]);
  });

  it("answers an unknown name with those that there are", () => {
    program("e/x/ao-x-exec");
    expect(() => findExecutor(discoverExecutors(join(dir, "e")), "y")).toThrow('no executor is named "y"; found: x');
    expect(() => findExecutor({ executors: [], problems: [] }, "y")).toThrow("found: none");
  });
});

describe("an executor given by its path", () => {
  it("is looked for in the package first and then in the working directory", () => {
    const [inPackage, inBoth, inCwd] = [program("p/ao-1-exec"), program("p/ao-2-exec"), program("c/ao-3-exec")];
    program("c/ao-2-exec");
    const at = (path: string) => resolveExecutorPath(path, join(dir, "p"), join(dir, "c"));
    expect([at("ao-1-exec"), at("ao-2-exec"), at("./ao-3-exec")]).toEqual([inPackage, inBoth, inCwd]);
    expect(at(inCwd)).toBe(inCwd);
  });

  it("that is missing or not executable is refused with every place and the remedy", () => {
    const path = program("c/ao-x-exec", 0o644);
    const at = (path: string) => () => resolveExecutorPath(path, join(dir, "p"), join(dir, "c"));
    expect(at("gone")).toThrow(`executor gone does not exist; looked at ${dir}/p/gone and ${dir}/c/gone`);
    expect(at("/gone")).toThrow("executor /gone does not exist; looked at /gone");
    expect(at("ao-x-exec")).toThrow(`run: chmod +x ${path}`);
  });

  it.each([
    ["executors/test-executor/ao-test-exec", "test"],
    ["/x/ao-claude-code-exec", "claude-code"],
    ["./my-program", "my-program"],
    ["ao-exec", "exec"],
    ["-exec", "-exec"],
  ])("%s is the profile %s", (path, name) => {
    expect(profileNameOf(path)).toBe(name);
  });
});
