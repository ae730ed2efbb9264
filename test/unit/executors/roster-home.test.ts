import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadEntry, loadRoster } from "../../../executors/lib/roster/load-roster.ts";
import { loginProblem } from "../../../executors/lib/roster/login.ts";
import { prepareHome, writePrivate } from "../../../executors/lib/roster/private-home.ts";
import type { AgentHome } from "../../../executors/lib/roster/roster-entry.ts";
import { inRepository } from "../../support/paths.ts";

const dirs = { bundledDir: inRepository("executors/roster"), userDir: "/nowhere" };
const { entries } = loadRoster(dirs);

let dir: string;
let userHome: string;
let session: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "roster-home-"));
  userHome = join(dir, "user");
  session = join(dir, "session");
  mkdirSync(userHome);
  mkdirSync(session);
});

afterEach(() => rmSync(dir, { recursive: true, force: true }));

function userFile(path: string, text = "secret"): string {
  const file = join(userHome, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
}

/** Everything below a folder: paths, kinds, modes, contents, times. */
function snapshot(of: string): string[] {
  return readdirSync(of, { recursive: true, encoding: "utf8" })
    .sort()
    .map((name) => {
      const status = lstatSync(join(of, name));
      const text = status.isFile() ? readFileSync(join(of, name), "utf8") : "";
      return [name, status.mode, status.mtimeMs, text].join(" ");
    });
}

const mode = (path: string): number => statSync(path).mode & 0o777;

const install = { registry: "npm", package: "robot", version: "1.0.0", sizeMb: 1, memoryMb: 1 } as const;
const home = (parts: Partial<AgentHome>) => ({
  name: "robot",
  install,
  home: { variables: {}, credentials: [], files: [], ...parts },
});

describe("the login of an agent", () => {
  const copilot = loadEntry("copilot", dirs);

  it("is a key, or a file that a login has left", () => {
    expect(loginProblem(copilot, { GH_TOKEN: "x" }, userHome, "linux")).toBeUndefined();
    userFile(".copilot/config.json");
    expect(loginProblem(copilot, {}, userHome, "linux")).toBeUndefined();
  });

  it("that is missing is NOT_LOGGED_IN and names both ways", () => {
    const error = loginProblem(copilot, { COPILOT_PROVIDER_API_KEY: "" }, userHome, "linux");
    expect(error?.reason).toBe("NOT_LOGGED_IN");
    expect(error?.message).toContain("Copilot CLI has no key and no login (none of COPILOT_PROVIDER_API_KEY, ");
    expect(error?.message).toContain(`${userHome}/.copilot/config.json)`);
    expect(error?.message).toContain("set COPILOT_PROVIDER_API_KEY where the runner is started, or start `copilot`");
  });

  it("may be in the keychain of a Mac, where it cannot be seen", () => {
    expect(loginProblem(copilot, {}, userHome, "darwin")).toBeUndefined();
    expect(loginProblem(loadEntry("codex", dirs), {}, userHome, "darwin")?.reason).toBe("NOT_LOGGED_IN");
  });

  it("is looked for where XDG_DATA_HOME puts it", () => {
    const opencode = loadEntry("opencode", dirs);
    userFile("data/opencode/auth.json");
    expect(loginProblem(opencode, {}, userHome, "linux")?.reason).toBe("NOT_LOGGED_IN");
    expect(loginProblem(opencode, { XDG_DATA_HOME: join(userHome, "data") }, userHome, "linux")).toBeUndefined();
  });

  it("is said for every agent of the roster, by name and with a way out", () => {
    for (const entry of entries) {
      const message = loginProblem(entry, {}, userHome, "linux")?.message;
      expect(message).toContain(entry.label);
      expect(message).toContain(`set ${entry.endpoint.keys[0]} where the runner is started, or `);
      expect(message).toContain(entry.endpoint.loginHint);
    }
  });

  it("is not asked for where an agent has none", () => {
    const endpoint = { ...copilot.endpoint, keys: [], logins: [], keychain: false };
    expect(loginProblem({ label: "Local", endpoint }, {}, userHome, "linux")).toBeUndefined();
  });
});

describe("the private home of a session", () => {
  it.each(entries.map((entry) => [entry.name, entry] as const))(
    "of %s holds its files, for its user alone, and leaves the user's home as it was",
    (_, entry) => {
      for (const { from } of entry.home.credentials) userFile(from);
      const before = snapshot(userHome);
      const env = Object.fromEntries(
        [entry.endpoint.url, ...entry.home.files.map(({ when }) => when)].map((name) => [name ?? "X", "http://x"]),
      );
      env["AGENT_RUNNER_AGENTS_DIR"] = join(dir, "agents");
      const first = prepareHome(entry, session, userHome, env);
      const files = snapshot(first.dir).map((line) => line.split(" ")[0]);
      expect(prepareHome(entry, session, userHome, env)).toEqual(first);
      expect(snapshot(first.dir).map((line) => line.split(" ")[0])).toEqual(files);
      expect(snapshot(userHome)).toEqual(before);
      const { variables, shared = {} } = entry.home;
      expect(Object.keys(first.env)).toEqual([...Object.keys(variables), ...Object.keys(shared)]);
      for (const name of Object.keys(variables)) expect(`${first.env[name]}/`).toContain(`${session}/home/`);
      for (const name of Object.keys(shared)) expect(first.env[name]).toContain(`${dir}/agents/`);
      for (const name of readdirSync(first.dir, { recursive: true, encoding: "utf8" })) {
        const path = join(first.dir, name);
        if (!lstatSync(path).isSymbolicLink()) expect(mode(path)).toBe(lstatSync(path).isDirectory() ? 0o700 : 0o600);
      }
      expect(mode(first.dir)).toBe(0o700);
      for (const { from, to, copy = false } of entry.home.credentials) {
        if (copy) expect(readFileSync(join(first.dir, to), "utf8")).toBe("secret");
        else expect(readlinkSync(join(first.dir, to))).toBe(join(userHome, from));
      }
      for (const { path } of entry.home.files.filter(({ path }) => path.endsWith(".json"))) {
        expect(() => JSON.parse(readFileSync(join(first.dir, path), "utf8"))).not.toThrow();
      }
    },
  );

  it("has the variables with absolute paths, and their folders", () => {
    const { dir, env } = prepareHome(home({ variables: { A: ".", B: "b/c" } }), session, userHome, {});
    expect(env).toEqual({ A: join(session, "home"), B: join(session, "home/b/c") });
    expect([dir, mode(env["B"]!)]).toEqual([env["A"], 0o700]);
  });

  it("fills values into files as JSON writes them within quotes", () => {
    const content = '{"a": "${env.A}", "b": "${env.B:-other}", "c": "${env.C:-}", "home": "${home}", "d": "${other}"}';
    const env = { A: 'quote " \\ \n end', B: "" };
    const { dir } = prepareHome(home({ files: [{ path: "x/f.json", content }] }), session, userHome, env);
    expect(JSON.parse(readFileSync(join(dir, "x/f.json"), "utf8"))).toEqual({
      ...{ a: env.A, b: "other", c: "", home: dir, d: "${other}" },
    });
  });

  it("writes a file only with its variable, and the last one of a path counts", () => {
    const files = [
      { path: "f", content: "always" },
      { path: "f", content: "with A", when: "A" },
      { path: "g", content: "with B", when: "B" },
    ];
    const { dir } = prepareHome(home({ files }), session, userHome, { B: "" });
    expect([readFileSync(join(dir, "f"), "utf8"), existsSync(join(dir, "g"))]).toEqual(["always", false]);
    prepareHome(home({ files }), session, userHome, { A: "1" });
    expect(readFileSync(join(dir, "f"), "utf8")).toBe("with A");
  });

  it("links no credential that is not there, and takes away a link to nothing", () => {
    const entry = home({ credentials: [{ from: "login", to: "deep/login" }] });
    const { dir } = prepareHome(entry, session, userHome, {});
    const link = join(dir, "deep/login");
    expect(lstatSync(link, { throwIfNoEntry: false })).toBeUndefined();
    const file = userFile("login");
    prepareHome(entry, session, userHome, {});
    expect(readlinkSync(link)).toBe(file);
    rmSync(file);
    prepareHome(entry, session, userHome, {});
    expect(lstatSync(link, { throwIfNoEntry: false })).toBeUndefined();
  });

  it("keeps a token that the agent renewed in place of the link, until the user's is newer", () => {
    const entry = home({ credentials: [{ from: "login", to: "login" }] });
    const file = userFile("login");
    const { dir } = prepareHome(entry, session, userHome, {});
    const own = join(dir, "login");
    rmSync(own);
    writeFileSync(own, "renewed");
    utimesSync(file, 1_000, 1_000);
    prepareHome(entry, session, userHome, {});
    expect(readFileSync(own, "utf8")).toBe("renewed");
    utimesSync(own, 500, 500);
    prepareHome(entry, session, userHome, {});
    expect(readlinkSync(own)).toBe(file);
    expect(readFileSync(file, "utf8")).toBe("secret");
  });

  it("copies what the agent keeps other things in, until the user's is newer", () => {
    const entry = home({ credentials: [{ from: "state", to: "state", copy: true }] });
    const file = userFile("state", "one");
    const own = join(prepareHome(entry, session, userHome, {}).dir, "state");
    expect([readFileSync(own, "utf8"), lstatSync(own).isSymbolicLink(), mode(own)]).toEqual(["one", false, 0o600]);
    writeFileSync(own, "of this session");
    prepareHome(entry, session, userHome, {});
    expect([readFileSync(own, "utf8"), readFileSync(file, "utf8")]).toEqual(["of this session", "one"]);
    utimesSync(own, 500, 500);
    prepareHome(entry, session, userHome, {});
    expect(readFileSync(own, "utf8")).toBe("one");
  });

  it("has folders in common with other sessions beside the install, or its own where that cannot be written", () => {
    const entry = home({ shared: { CACHE: "cache" } });
    const agents = join(dir, "agents");
    const { env } = prepareHome(entry, session, userHome, { AGENT_RUNNER_AGENTS_DIR: agents });
    expect([env["CACHE"], mode(env["CACHE"]!)]).toEqual([join(agents, "robot/shared/cache"), 0o700]);
    writeFileSync(join(dir, "file"), "");
    const other = prepareHome(entry, session, userHome, { AGENT_RUNNER_AGENTS_DIR: join(dir, "file") });
    expect(other.env["CACHE"]).toBe(join(session, "home/shared/cache"));
  });

  it("renames what the agent would write over, each time to a name that is free", () => {
    const { home: entry } = loadEntry("gemini", dirs);
    const place = join(session, "home/.gemini/tmp/project/chats");
    mkdirSync(place, { recursive: true });
    const name = "session-2026-11-25T21-03-7cddc5eb.jsonl";
    for (const text of ["first", "second", "third"]) {
      writeFileSync(join(place, name), text);
      writeFileSync(join(place, "other.json"), "");
      prepareHome(home(entry), session, userHome, {});
    }
    const all = readdirSync(place).sort();
    expect(all).toEqual(["other.json", ...[0, 1, 2].map((n) => `session-2026-11-25T21-03.${n}-7cddc5eb.jsonl`)]);
    const texts = all.slice(1).map((file) => readFileSync(join(place, file), "utf8"));
    expect(texts).toEqual(["first", "second", "third"]);
  });

  it("points links at the home of now", () => {
    const entry = home({ credentials: [{ from: "login", to: "login" }] });
    userFile("login");
    const { dir: place } = prepareHome(entry, session, userHome, {});
    const other = join(dir, "other");
    mkdirSync(other);
    writeFileSync(join(other, "login"), "");
    prepareHome(entry, session, other, {});
    expect(readlinkSync(join(place, "login"))).toBe(join(other, "login"));
  });
});

describe("a private file", () => {
  it("replaces what was there, a link too, and not what the link leads to", () => {
    const target = userFile("target", "theirs");
    const path = join(session, "file");
    symlinkSync(target, path);
    writePrivate(path, "ours");
    expect([readFileSync(path, "utf8"), readFileSync(target, "utf8"), mode(path)]).toEqual(["ours", "theirs", 0o600]);
    expect(readdirSync(session)).toEqual(["file"]);
  });

  it("leaves nothing aside when it cannot be put in place", () => {
    mkdirSync(join(session, "folder/full"), { recursive: true });
    expect(() => writePrivate(join(session, "folder"), "x")).toThrow(/EISDIR|ENOTEMPTY|EEXIST/);
    expect(readdirSync(session)).toEqual(["folder"]);
  });
});
