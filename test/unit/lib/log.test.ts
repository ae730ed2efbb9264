import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { createLogger } from "../../../lib/log.ts";
import type { LogFormat } from "../../../lib/log.ts";
import { until } from "../../support/until.ts";

const SECRET = "s3cr3t-planted";
const LOG_MODULE = new URL("../../../lib/log.ts", import.meta.url).href;

function capture(format: LogFormat) {
  const lines: string[] = [];
  const log = createLogger({ name: "unit", level: "info", format, destination: { write: (line) => lines.push(line) } });
  return { log, lines };
}

/** Runs a few lines with `log` in a process of their own, whose stderr is a pipe. */
function runProgram(body: string, format: LogFormat = "auto") {
  const options = JSON.stringify({ name: "unit", level: "info", format });
  const program = `import { createLogger } from ${JSON.stringify(LOG_MODULE)}; const log = createLogger(${options}); ${body}`;
  return spawnSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" });
}

describe("createLogger", () => {
  it.each(["json", "pretty"] as const)("hides planted secrets in %s lines, at the top and one level down", (format) => {
    const { log, lines } = capture(format);
    for (const key of ["token", "authorization", "prompt", "run_token", "runner_token", "runToken", "runnerToken"]) {
      log.info({ [key]: SECRET, run_id: "run_1" }, "top");
      log.info({ request: { [key]: SECRET, run_id: "run_1" } }, "nested");
    }
    expect(lines).toHaveLength(14);
    expect(lines.join("")).not.toContain(SECRET);
    for (const line of lines) {
      expect(line).toContain("[redacted]");
      expect(line).toContain("run_1");
    }
  });

  it("writes one JSON object per line with the level by name and the time in ISO form", () => {
    const { log, lines } = capture("json");
    log.warn({ run_id: "run_1" }, "a word");
    expect(JSON.parse(lines[0]!)).toMatchObject({ level: "warn", name: "unit", run_id: "run_1", msg: "a word" });
    expect(JSON.parse(lines[0]!).time).toMatch(/^\d{4}-\d\d-\d\dT/);
  });

  it("has no key twice, and shows the host name that a line is about", () => {
    const line = { hostname: "box-of-the-runner" };
    const { log, lines } = capture("json");
    log.info(line, "runner registered");
    const keys = [...lines[0]!.matchAll(/"(\w+)":/g)].map(([, key]) => key);
    expect(keys).toEqual([...new Set(keys)]);
    expect(JSON.parse(lines[0]!)).toMatchObject(line);
    const pretty = capture("pretty");
    pretty.log.info(line, "runner registered");
    expect(pretty.lines[0]).toContain("box-of-the-runner");
    expect(pretty.lines[0]).not.toContain(String(process.pid));
  });

  it("keeps the chain of causes of an error", () => {
    const { log, lines } = capture("json");
    log.error({ err: new Error("outer", { cause: new Error("inner") }) }, "failed");
    expect(lines[0]).toContain("outer");
    expect(lines[0]).toContain("inner");
  });

  it("writes nothing below its level", () => {
    const { log, lines } = capture("json");
    log.debug("too fine");
    expect(lines).toEqual([]);
  });

  it("writes JSON to stderr, never to stdout, when stderr is not a terminal", () => {
    const { stdout, stderr } = runProgram('log.info("hello")');
    expect(stdout).toBe("");
    expect(JSON.parse(stderr).msg).toBe("hello");
  });

  it.each(["json", "pretty"] as const)("loses no %s line before process.exit()", (format) => {
    const { stderr } = runProgram("for (let i = 0; i < 500; i += 1) log.info(`line ${i}`); process.exit(0)", format);
    expect(stderr.trimEnd().split("\n")).toHaveLength(500);
    expect(stderr).toContain("line 499");
  });

  it("drops lines that nobody reads, counts them, and keeps the process going", async () => {
    const options = JSON.stringify({ name: "unit", level: "info", format: "json" });
    const body =
      "for (let i = 0; i < 20_000; i += 1) log.info(`${i} ${'x'.repeat(200)}`); process.stdout.write('alive'); process.stdin.on('end', () => log.info('last'));process.stdin.resume();";
    const program = `import { createLogger } from ${JSON.stringify(LOG_MODULE)}; const log = createLogger(${options}); ${body}`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program]);
    const exited = once(child, "exit");
    await once(child.stdout, "data");
    let read = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (read += text));
    await until(() => read.includes("log lines were dropped"), "the count of what was dropped");
    child.stdin.end();
    expect((await exited)[0]).toBe(0);
    await until(() => read.includes('"last"'), "the last line");
    const lines = read
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as { msg: string; lines?: number });
    const dropped = lines.find(({ lines }) => lines !== undefined)?.lines ?? 0;
    expect(lines.length - 2 + dropped).toBe(20_000);
    expect(dropped).toBeGreaterThan(10_000);
  });

  it("lets a process end that nobody reads", async () => {
    const end = new URL("../../../lib/end-process.ts", import.meta.url).href;
    const program = `import { createLogger } from ${JSON.stringify(LOG_MODULE)}; import { endProcess } from ${JSON.stringify(end)};
      const log = createLogger({ name: "unit", level: "info", format: "json" });
      for (let i = 0; i < 10_000; i += 1) log.info("x".repeat(200)); await endProcess(7);`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program]);
    expect((await once(child, "exit"))[0]).toBe(7);
  });
});
