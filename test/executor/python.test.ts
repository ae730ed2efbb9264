import { cpSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { parseInvocation } from "../../lib/invocation.ts";
import { BROKEN, NO_DOCUMENT, VALID } from "../golden/invocation-broken.ts";
import { invocationOf, killStarted, start } from "./executors-support.ts";
import { FIXTURES, LIB, missing, python } from "./python-support.ts";
import { inRepository } from "../support/paths.ts";

const GOLDEN = inRepository("test/golden/files");

/** uv fetches the executor's dependency: what a runner would be told to pass on with --pass-env. */
const NETWORK = Object.fromEntries(
  ["SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "UV_INDEX_URL", "UV_DEFAULT_INDEX"].flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value]];
  }),
);

const noPython = missing("python3");
const noUv = missing("uv");

/** A tree with lib/, sdk/python and executors/minimal/, laid out as ours is. */
let root: string;
let minimal: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "python-"));
  for (const file of globSync("*.py", { cwd: LIB })) cpSync(join(LIB, file), join(root, "lib", file));
  cpSync(inRepository("sdk/python"), join(root, "sdk/python"), { recursive: true });
  minimal = join(root, "executors/minimal/ao-minimal-exec");
  mkdirSync(join(root, "executors/minimal"), { recursive: true });
  cpSync(join(FIXTURES, "ao-minimal-exec"), minimal);
});
afterEach(killStarted);
afterAll(() => rmSync(root, { recursive: true }));

describe("the minimal Python executor of the documentation, verbatim", () => {
  const cases: [program: string, skipped: string | undefined, command: () => [string, ...string[]]][] = [
    ["uv run --script", noUv, () => ["uv", "run", "--script", minimal]],
    ["python3", noPython, () => ["python3", minimal]],
  ];
  describe.each(cases)("under %s", (_, skipped, command) => {
    it("starts and resumes a session by its name, which is its id when it has none", async ({ skip }) => {
      if (skipped !== undefined) skip(skipped);
      const first = await start(command(), invocationOf("hello", { session_name: "nightly" }), { env: NETWORK }).ended;
      expect(first, first.stderr).toMatchObject({ code: 0, stdout: "Starting session: nightly\n" });
      const second = await start(command(), invocationOf("more", { mode: "resume" }), { env: NETWORK }).ended;
      expect(second).toMatchObject({ code: 0, stdout: "Resuming session: ses_1\n" });
    });
  });

  it("ends with the error of the invocation as its last line on stderr", async ({ skip }) => {
    if (noPython !== undefined) skip(noPython);
    const { code, stderr } = await start(["python3", minimal], invocationOf("a", { mode: "x" })).ended;
    expect(code).toBe(1);
    expect(stderr).toMatch(/InvocationError: invocation\.mode: expected "start" or "resume", found "x"\n$/);
  });
});

describe.skipIf(noPython)("lib/invocation.py", () => {
  /** What it makes of each text. */
  async function parseEach(texts: string[]): Promise<string[]> {
    const { code, stdout, stderr } = await python([join(FIXTURES, "parse_each.py")], JSON.stringify(texts));
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    return stdout.trimEnd().split("\n");
  }

  it("reads every golden file as TypeScript does", async () => {
    const texts = globSync("*.json", { cwd: GOLDEN }).map((file) => readFileSync(join(GOLDEN, file), "utf8"));
    expect(texts.length).toBeGreaterThan(4);
    for (const [index, line] of (await parseEach(texts)).entries()) {
      expect(JSON.parse(line)).toMatchObject(JSON.parse(JSON.stringify(parseInvocation(texts[index] ?? ""))));
    }
  });

  it("refuses what TypeScript refuses, in the same words", async () => {
    const texts = BROKEN.map(({ change }) => JSON.stringify({ ...VALID, ...change }));
    const errors = BROKEN.map(({ error }) => `error: ${error}`);
    expect(await parseEach([...texts, ...NO_DOCUMENT.map(([text]) => text)])).toEqual([
      ...errors,
      ...NO_DOCUMENT.map(([, error]) => `error: ${error}`),
    ]);
  });

  it("takes numbers as JSON means them, and refuses what nests without end", async () => {
    const attempt = (text: string) => JSON.stringify({ ...VALID, attempt: "?" }).replace('"?"', text);
    const [whole, huge, infinite, deep] = await parseEach(["2.0", "1e30", "1e999", "[".repeat(100_000)].map(attempt));
    expect(JSON.parse(whole ?? "")).toMatchObject({ attempt: 2 });
    expect(huge).toContain('"attempt": 1000000000000000');
    expect(infinite).toBe("error: invocation.attempt: expected a positive integer, found a number");
    expect(deep).toMatch(/^error: invocation: expected one JSON document, found "/);
  });

  it("refuses more than 8 MiB, and bytes that are not UTF-8", async () => {
    const from = "from invocation import ExecutorInvocation as E; import io; E.from_stdin(io.BytesIO";
    const long = await python(["-c", `${from}(b'x' * (8 * 2**20 + 1)))`]);
    expect(long.stderr).toMatch(/InvocationError: invocation: longer than 8388608 bytes\n$/);
    const latin = await python(["-c", `${from}(b'\\xff'))`]);
    expect(latin.stderr).toMatch(/InvocationError: invocation: not UTF-8\n$/);
  });
});
