import { execFileSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { chownSync, existsSync, readFileSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { main as ao } from "../../../cli/main.ts";
import { parseCoordinatorConfig } from "../../../coordinator/config.ts";
import { agentsFolder, storeFolder } from "../../../coordinator/folders.ts";
import { readTls } from "../../../coordinator/http/tls-files.ts";
import { readFileIfThere } from "../../../lib/config/read-file.ts";
import { createLogger } from "../../../lib/log.ts";
import { parseRunnerOptions } from "../../../runner/config.ts";
import { knownIds } from "../../../runner/leases/identity-file.ts";
import { openStateDir } from "../../../runner/leases/state-dir.ts";
import { find, resolveSettings } from "../../../runner/settings/resolve-settings.ts";
import { inRepository } from "../../support/paths.ts";

const dir = realpathSync(mkdtempSync(join(tmpdir(), "wrong-files-")));
const at = (...names: string[]): string => join(dir, ...names);
const CLOSED = ["closed", "secret", "project/.agent-orchestrator/profiles"];

beforeAll(() => {
  for (const folder of ["folder", "closed", "empty", "project/.agent-orchestrator/profiles"])
    mkdirSync(at(folder), { recursive: true });
  writeFileSync(at("plain"), "nothing of use\n");
  writeFileSync(at("nothing"), "");
  execFileSync("mkfifo", [at("pipe")]);
  symlinkSync(at("loop"), at("loop"));
  writeFileSync(at("secret"), "{}");
  for (const file of ["cert.pem", "key.pem"]) copyFileSync(inRepository(`test/fixtures/tls/${file}`), at(file));
  chmodSync(at("key.pem"), 0o644);
  const { privateKey } = generateKeyPairSync("ed25519");
  const form = { type: "pkcs8", format: "pem" } as const;
  writeFileSync(at("other.pem"), privateKey.export(form));
  writeFileSync(at("sealed.pem"), privateKey.export({ ...form, cipher: "aes-256-cbc", passphrase: "x" }));
  const pem = readFileSync(at("cert.pem"), "utf8");
  writeFileSync(at("chain.pem"), `${pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`);
  chmodSync(dir, 0o755);
  for (const path of CLOSED) chmodSync(at(path), 0o000);
});

afterAll(() => {
  for (const path of CLOSED) chmodSync(at(path), 0o700);
  rmSync(dir, { recursive: true });
});

/** What the attempt is refused with. Root may read everything, so root tries as somebody who may not. */
async function refusal(attempt: () => unknown): Promise<Error> {
  const root = process.getuid?.() === 0;
  if (root) process.seteuid?.(65_534);
  try {
    await attempt();
  } catch (error) {
    return error as Error;
  } finally {
    if (root) process.seteuid?.(0);
  }
  throw new Error("it was taken");
}

const quiet = createLogger({ name: "unit", level: "silent", format: "json" });
const RUNNER = ["-x", "test-executor"];

function coordinator(...flags: string[]): void {
  parseCoordinatorConfig(flags, {}, readFileIfThere);
}

function runner(...flags: string[]): void {
  const parsed = parseRunnerOptions([...RUNNER, "--state-dir", at("empty"), ...flags], {}, readFileIfThere);
  if (parsed.type === "config") resolveSettings(parsed.config, find(parsed.config), at("empty"));
}

/** Throws what `ao` says, as the others do. */
async function client(...argv: string[]): Promise<void> {
  let said = "";
  const sink = { write: (text: string) => (said += text) };
  const io = { stdin: Readable.from([]), stdout: sink, stderr: sink, env: {}, onInterrupt: () => () => undefined };
  const code = await ao(["-c", "http://127.0.0.1:1", ...argv], io);
  throw Object.assign(new Error(said), { name: code === 2 ? "UsageError" : `exit ${code}` });
}

type Row = readonly [where: string, attempt: (path: string) => unknown];

const FILES: readonly Row[] = [
  ["agent-coordinator --config", (path) => coordinator("--config", path)],
  ["agent-coordinator --tls-cert", (path) => readTls({ cert: path, key: at("key.pem") }, 0)],
  ["agent-coordinator --tls-key", (path) => readTls({ cert: at("cert.pem"), key: path }, 0)],
  ["agent-runner --config", (path) => runner("--config", path)],
  ["agent-runner --tls-ca", (path) => runner("--tls-ca", path)],
  ["ao --tls-ca", (path) => client("--tls-ca", path, "runners")],
  ["ao --prompt-file", (path) => client("start", "x", "--prompt-file", path)],
  ["ao blueprints create -f", (path) => client("blueprints", "create", "-f", path)],
];

const FOLDERS: readonly Row[] = [
  ["agent-coordinator --store", (path) => storeFolder(join(path, "x.db"))],
  ["agent-coordinator --agents-dir", (path) => agentsFolder(path, true)],
  ["agent-runner --project-dir", (path) => runner("--project-dir", path)],
  ["agent-runner --executors-dir", (path) => runner("--executors-dir", path, "-x", "mine")],
  ["agent-runner --state-dir", (path) => openStateDir(path, "lnch_1", quiet)],
];

describe("a file or folder that cannot be used is somebody's, and no bug", () => {
  it.each(FILES)("%s", async (_where, attempt) => {
    const cases: readonly [string, RegExp][] = [
      [at("missing"), /does not exist|not there/],
      [at("folder"), /is a directory.* \(EISDIR\)/],
      [at("plain", "below"), /is a file.* \(ENOTDIR\)/],
      [at("loop"), /loop of symbolic links \(ELOOP\)/],
      [at("secret"), /may not use it: .*secret belongs to user \d+ \(EACCES\)/],
      [at("closed", "below"), /may not use it: .*closed belongs to user \d+ \(EACCES\)/],
    ];
    for (const [path, why] of cases) await expectRefusal(path, why, attempt);
  });

  it.each(FILES.filter(([where]) => !where.startsWith("ao ") || where.endsWith("--tls-ca")))(
    "%s: nobody waits for a pipe that no one writes to, nor reads a device",
    async (_where, attempt) => {
      await expectRefusal(at("pipe"), /is a named pipe, not a file/, attempt);
      await expectRefusal("/dev/zero", /is a device, not a file/, attempt);
    },
  );

  it("takes what a shell makes of <(command), and /dev/null, which is empty", () => {
    const reader = `import { readFileIfThere } from ${JSON.stringify(inRepository("lib/config/read-file.ts"))};
      process.stdout.write(process.argv.slice(1).map((path) => readFileIfThere(path)).join("|"));`;
    const script = 'exec "$0" --input-type=module -e "$1" <(echo a) /dev/null <(echo b)';
    expect(execFileSync("bash", ["-c", script, process.execPath, reader], { encoding: "utf8" })).toBe("a\n||b\n");
  });

  it("agent-runner: a profile, and the note of who a state directory is of", () => {
    const profiles = at("pipes/.agent-orchestrator/profiles");
    mkdirSync(profiles, { recursive: true });
    execFileSync("mkfifo", [join(profiles, "mine.json")]);
    const flags = ["--profile", "mine", "--project-dir", at("pipes"), "--state-dir", at("empty")];
    const parsed = parseRunnerOptions(flags, {}, readFileIfThere);
    const attempt = () => parsed.type === "config" && resolveSettings(parsed.config, find(parsed.config), dir);
    expect(attempt).toThrow(/mine.json: is a named pipe, not a file/);
    mkdirSync(at("pipes/lnch_0123456789ab"));
    execFileSync("mkfifo", [at("pipes/lnch_0123456789ab/identity.json")]);
    const who = { hostname: "h", projectDir: "/p", executorProfile: "x", name: "" };
    expect(knownIds(at("pipes"), who, true)).toHaveLength(1);
  });

  it.each(FOLDERS)("%s", async (where, attempt) => {
    // Runners make their state directory with all that leads to it, where they may.
    if (!where.endsWith("--state-dir")) await expectRefusal(at("missing"), /does not exist/, attempt);
    await expectRefusal(at("plain", "below"), /ENOTDIR|does not exist$/, attempt);
    await expectRefusal(at("loop"), /\(ELOOP\)/, attempt);
    await expectRefusal(at("closed", "below"), /\(EACCES\)/, attempt);
  });

  it("agent-runner: the folder of profiles", async () => {
    const attempt = () => {
      const flags = ["--profile", "mine", "--project-dir", at("project"), "--state-dir", at("empty")];
      const parsed = parseRunnerOptions(flags, {}, readFileIfThere);
      if (parsed.type === "config") resolveSettings(parsed.config, find(parsed.config), dir);
    };
    await expectRefusal(at("project/.agent-orchestrator/profiles"), /cannot be read: .*\(EACCES\)/, attempt);
  });

  it("agent-coordinator, agent-runner: the file that is looked for without being named", async () => {
    const read = (): undefined => void readFileIfThere(at("closed/x.yaml"));
    for (const attempt of [() => parseCoordinatorConfig([], {}, read), () => parseRunnerOptions([], {}, read)]) {
      const { message } = await refusal(attempt);
      expect(message).toMatch(/^configuration file .*\.yaml cannot be read: .*\(EACCES\)\n.*--config FILE$/);
    }
  });

  it("says --state-dir where the state cannot be kept", async () => {
    const { message } = await refusal(() => openStateDir(at("closed"), "lnch_1", quiet));
    expect(message).toMatch(/^runner state .*lnch_1: .*\(EACCES\)\nname another place with --state-dir DIR$/);
  });

  it("keeps the state to its owner, and takes none that others may have written", async () => {
    const state = openStateDir(at("empty/state"), "lnch_1", quiet);
    for (const file of ["state.db", "state.db-wal"]) {
      expect(statSync(at("empty/state/lnch_1", file)).mode & 0o077, file).toBe(0);
    }
    await state.close();
    chmodSync(at("empty/state/lnch_1"), 0o777);
    const open = () => openStateDir(at("empty/state"), "lnch_1", quiet);
    expect(open).toThrow(/everybody may write into it; chmod o-w .*\nname another place with --state-dir DIR$/);
    // A process without rights may not give its directory away.
    if (process.getuid?.() !== 0) return;
    chmodSync(at("empty/state/lnch_1"), 0o700);
    chownSync(at("empty/state/lnch_1"), 65_534, 65_534);
    expect(open).toThrow(/it belongs to user 65534, .* to user 0/);
  });

  async function expectRefusal(path: string, why: RegExp, attempt: (path: string) => unknown): Promise<void> {
    const { name, message } = await refusal(() => attempt(path));
    expect({ name, message }).toEqual({ name: expect.stringMatching(/^(Usage|StateRefused)Error$/), message });
    expect(message).toContain(path);
    expect(message).toMatch(why);
    expect(message).not.toMatch(/\n\s+at /);
  }
});

describe("TLS files that are not what they should be are named", () => {
  it.each([
    ["a certificate that is none", "plain", "key.pem", /^--tls-cert .*plain holds no certificate in PEM form$/],
    ["an empty one", "nothing", "key.pem", /^--tls-cert .*nothing holds no certificate in PEM form: it is empty$/],
    ["a key that is none", "cert.pem", "plain", /^--tls-key .*plain holds no private key in PEM form$/],
    ["the two of them swapped", "key.pem", "cert.pem", /^--tls-cert .*key.pem holds a private key, .* swapped\?$/],
    ["the key of another certificate", "cert.pem", "other.pem", /other.pem is not the key of the certificate/],
    [
      "a chain of which the second is none",
      "chain.pem",
      "key.pem",
      /chain.pem and --tls-key .* cannot be used: Error: /,
    ],
    ["a key with a passphrase", "cert.pem", "sealed.pem", /sealed.pem is encrypted with a passphrase/],
  ])("%s", (_what, cert, key, why) => {
    expect(() => readTls({ cert: at(cert), key: at(key) }, 0)).toThrow(why);
  });

  it.each([["agent-runner", runner] as const, ["ao", (...argv: string[]) => client(...argv, "runners")] as const])(
    "%s: authorities that are none",
    async (_program, attempt) => {
      const { message } = await refusal(() => attempt("--tls-ca", at("plain")));
      expect(message).toContain(`--tls-ca ${at("plain")} holds no certificate in PEM form`);
    },
  );

  it("and what will be trouble is a warning", () => {
    const files = { cert: at("cert.pem"), key: at("key.pem") };
    const warnings = (nowMs: number) => readTls(files, nowMs).warnings;
    expect(warnings(Date.now())).toEqual([expect.stringMatching(/key.pem can be read by everybody .*: chmod o= /)]);
    expect(warnings(0)[0]).toMatch(/is valid from \d{4}/);
    expect(warnings(Date.now() + 200 * 365 * 86_400_000)[0]).toMatch(/expired on 2\d{3}/);
  });
});

describe("the folder of the store", () => {
  it("is made when it is .agent-orchestrator, and a new store in it is kept out of git", () => {
    const folder = at("empty/.agent-orchestrator");
    storeFolder(join(folder, "coordinator.db"));
    const ignored = readFileSync(join(folder, ".gitignore"), "utf8").split("\n");
    expect(ignored).toEqual(expect.arrayContaining([".gitignore", "*.db", "*.db-*"]));
  });

  it("keeps the .gitignore of its owner, and gets none beside a store that is there", () => {
    for (const name of ["mine", "old"]) mkdirSync(at(name, ".agent-orchestrator"), { recursive: true });
    writeFileSync(at("mine/.agent-orchestrator/.gitignore"), "agents\n");
    storeFolder(at("mine/.agent-orchestrator/coordinator.db"));
    expect(readFileSync(at("mine/.agent-orchestrator/.gitignore"), "utf8")).toBe("agents\n");
    writeFileSync(at("old/.agent-orchestrator/coordinator.db"), "");
    storeFolder(at("old/.agent-orchestrator/coordinator.db"));
    expect(existsSync(at("old/.agent-orchestrator/.gitignore"))).toBe(false);
  });
});

describe("the folder of the blueprints", () => {
  it("may be missing when nobody named it", () => {
    expect(() => agentsFolder(at("missing"), false)).not.toThrow();
  });
});
