import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createLogger } from "../../../lib/log.ts";
import { SessionDirError, SessionDirs, sessionDirName } from "../../../runner/execution/session-dirs.ts";
import { SessionKeeper } from "../../../runner/session-keeper.ts";
import { cleanUp, tempDir } from "../../support/test-runner.ts";

let base: string;
let dirs: SessionDirs;

beforeEach(() => {
  base = tempDir();
  dirs = new SessionDirs(base);
});
afterEach(cleanUp);

const of = (sessionId: string, storeId = "store_a") => ({ sessionId, storeId });
const inside = (...path: string[]) => join(base, "sessions", ...path);

describe("the folder of a session", () => {
  it("is found again by every runner of the base, and nobody else may look into it", () => {
    const dir = dirs.make(of("ses_1"));
    expect(dir).toBe(inside("ses_1"));
    for (const one of [inside(), dir]) expect(statSync(one).mode & 0o777).toBe(0o700);
    writeFileSync(join(dir, "state.json"), "{}");
    expect(new SessionDirs(base).make(of("ses_1"))).toBe(dir);
    expect(readdirSync(dir).sort()).toEqual([".agent-runner.json", "state.json"]);
    expect(JSON.parse(readFileSync(join(dir, ".agent-runner.json"), "utf8"))).toEqual({
      session_id: "ses_1",
      store_id: "store_a",
    });
    expect(dirs.ownerOf("ses_1")).toEqual(of("ses_1"));
  });

  it.each(["../../etc", "..", ".", "", "a/b", "SES_1", ".removed-1", "a\0b", "x".repeat(200), "sha256-1"])(
    "of an id that is no name of a folder, %j, is another one inside",
    (sessionId) => {
      expect(sessionDirName(sessionId)).toMatch(/^sha256-[0-9a-f]{64}$/);
      const dir = dirs.make(of(sessionId));
      expect(readdirSync(inside())).toEqual([sessionDirName(sessionId)]);
      expect(dir).toBe(inside(sessionDirName(sessionId)));
      expect(dirs.ownerOf(sessionDirName(sessionId))).toEqual(of(sessionId));
    },
  );

  it("is not given to a session of the same id of another coordinator", () => {
    dirs.make(of("ses_1"));
    expect(() => dirs.make(of("ses_1", "store_b"))).toThrow(/it belongs to session "ses_1" of store "store_a"/);
  });

  it("is not what somebody else put in its place", () => {
    dirs.make(of("ses_1"));
    symlinkSync(base, inside("ses_2"));
    expect(() => dirs.make(of("ses_2"))).toThrow(/ses_2 is not a directory; remove it/);
    writeFileSync(inside("ses_1", ".agent-runner.json"), "nonsense");
    expect(() => dirs.make(of("ses_1"))).toThrow(/does not say whose it is; remove the folder/);
    expect(dirs.ownerOf("ses_1")).toBeUndefined();
  });

  it("that cannot be made for want of space is the machine's trouble", () => {
    const cause = Object.assign(new Error("no space"), { code: "ENOSPC" });
    expect(new SessionDirError("x", cause).shortage).toBe(true);
    expect(new SessionDirError("x", new Error("other")).shortage).toBe(false);
  });
});

describe("the keeper", () => {
  const log: string[] = [];
  const destination = { write: (line: string) => void log.push(line) };

  function keeper(existing: readonly string[], { passMax = 100, active = [] as string[], stores = ["store_a"] } = {}) {
    log.length = 0;
    const asked: string[] = [];
    let store = 0;
    const made = new SessionKeeper({
      dirs,
      asker: () => ({
        storeId: () => Promise.resolve(stores[Math.min(store++, stores.length - 1)]!),
        exists: (sessionId) => {
          asked.push(sessionId);
          return sessionId === "ses_broken"
            ? Promise.reject(new Error("down"))
            : Promise.resolve(existing.includes(sessionId));
        },
        confirm: () => Promise.resolve(),
        close: () => undefined,
      }),
      isActive: (sessionId) => active.includes(sessionId),
      closing: new AbortController().signal,
      log: createLogger({ name: "test", level: "info", format: "json", destination }),
      passMax,
    });
    return { keeper: made, asked };
  }

  it("removes the folders of sessions that are gone, and says so", async () => {
    for (const id of ["ses_1", "ses_2", "ses_3"]) dirs.make(of(id));
    dirs.make(of("ses_4", "store_b"));
    mkdirSync(inside("not_ours"));
    const { keeper: one, asked } = keeper(["ses_1"], { active: ["ses_3"] });
    expect(await one.pass()).toBe("all");
    expect(readdirSync(inside())).toEqual(["not_ours", "ses_1", "ses_3", "ses_4"]);
    expect(asked).toEqual(["ses_1", "ses_2"]);
    expect(log.map((line) => JSON.parse(line))).toMatchObject([
      { session_id: "ses_2", msg: "the session is gone from the coordinator; its folder was removed" },
    ]);
  });

  it("asks about some in each pass, and about each once", async () => {
    const ids = ["ses_1", "ses_2", "ses_3"];
    for (const id of ids) dirs.make(of(id));
    const { keeper: one, asked } = keeper(ids, { passMax: 2 });
    expect([await one.pass(), await one.pass()]).toEqual(["more", "all"]);
    expect(asked).toEqual(ids);
  });

  it("removes nothing when the coordinator does not answer, or has another store meanwhile", async () => {
    dirs.make(of("ses_1"));
    expect(await keeper([], { stores: ["store_a", "store_b"] }).keeper.pass()).toBe("all");
    dirs.make(of("ses_broken"));
    await expect(keeper([]).keeper.pass()).rejects.toThrow("down");
    expect(readdirSync(inside())).toEqual(["ses_1", "ses_broken"]);
  });

  it("finishes what a killed process had begun to remove", async () => {
    mkdirSync(inside(".removed-1/deep"), { recursive: true });
    await keeper([]).keeper.pass();
    expect(existsSync(inside(".removed-1"))).toBe(false);
    rmSync(inside(), { recursive: true });
    expect(await keeper([]).keeper.pass()).toBe("all");
  });
});
