import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromJson } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ExecutorEventSchema, ExecutorInvocationSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import { parseInvocation } from "../../lib/invocation.ts";
import { killStarted, start } from "./executors-support.ts";
import { missing } from "./python-support.ts";
import { inRepository } from "../support/paths.ts";

const EXECUTORS = inRepository("executors");
const README = readFileSync(join(EXECUTORS, "README.md"), "utf8");
const golden = (name: string) => readFileSync(inRepository(`test/golden/files/${name}.json`), "utf8");

const blocks = Array.from(README.matchAll(/^```(\w+)\n(.*?)^```$/gms), ([, language = "", text = ""]) => ({
  language,
  text,
}));

/** The only code block in a language that begins like this. */
function block(language: string, beginning = ""): string {
  const found = blocks.filter(({ text, ...block }) => block.language === language && text.startsWith(beginning));
  expect(found, `${language} ${beginning}`).toHaveLength(1);
  return found[0]?.text ?? "";
}

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "executors-readme-"));
  mkdirSync(join(root, "executors"));
  symlinkSync(join(EXECUTORS, "lib"), join(root, "executors/lib"));
});
afterEach(() => {
  killStarted();
  rmSync(root, { recursive: true });
});

/** Does what the README says, with one of its executors as the text of the file, and runs that on a golden invocation. */
async function follow(executor: string, invocation: string) {
  rmSync(join(root, "executors/my-executor"), { recursive: true, force: true });
  const made = await start(["bash", "-e"], block("bash", "mkdir "), { cwd: root }).ended;
  expect(made).toMatchObject({ code: 0, stderr: "" });
  const file = join(root, "executors/my-executor/ao-my-executor-exec");
  writeFileSync(file, executor);
  return start([file], invocation, { cwd: root }).ended;
}

const eventsOf = (text: string) =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

describe("executors/README.md", () => {
  it("has executors in bash and Python of under ten lines", () => {
    for (const text of [block("bash", "#!"), block("python", "#!")]) expect(text.split("\n").length).toBeLessThan(11);
  });

  it("has a bash executor that prints its result", async () => {
    expect(await follow(block("bash", "#!"), golden("start"))).toEqual({
      code: 0,
      signal: null,
      stdout: '{"type":"status","text":"shouting"}\nUSER INPUT TEXT\n',
      stderr: "",
    });
  });

  it("has a Python executor that names its conversation and counts", async ({ skip }) => {
    const noPython = missing("python3");
    if (noPython !== undefined) skip(noPython);
    const first = await follow(block("python", "#!"), golden("unicode"));
    expect(first).toMatchObject({ code: 0, stderr: "" });
    const session = { type: "session", executor_session_id: "count-ses_abc123" };
    expect(eventsOf(first.stdout)).toEqual([session, { type: "result", text: "7 words", data: { words: 7 } }]);
    const second = await follow(block("python", "#!"), golden("resume"));
    expect(eventsOf(second.stdout)[0]).toEqual({ type: "session", executor_session_id: "test-ses_abc123" });
  });

  it("has a JavaScript executor that uses our TypeScript helpers", async () => {
    const { code, stdout, stderr } = await follow(block("js", "#!"), golden("start"));
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(eventsOf(stdout)).toEqual([
      { type: "message", role: "assistant", text: "start: User input text" },
      { type: "result", text: "done", data: { length: 15 } },
    ]);
  });

  it("shows an invocation with every field, in the order of the message", () => {
    const text = block("jsonc").replaceAll(/ +\/\/ .*$/gm, "");
    expect(parseInvocation(text)).toEqual(JSON.parse(text));
    expect(Object.keys(JSON.parse(text))).toEqual(ExecutorInvocationSchema.fields.map(({ name }) => name));
  });

  it("shows an event of every type that an executor can say, in its shape", () => {
    const events = eventsOf(block("jsonl"));
    for (const { type, ...event } of events) {
      expect(fromJson(ExecutorEventSchema, { [type]: event }).event.case).toBe(type);
    }
    // The other two are what the runner makes of what it reads.
    const types = ExecutorEventSchema.fields.map(({ name }) => name).filter((n) => n !== "output" && n !== "dropped");
    expect(new Set(events.map(({ type }) => type))).toEqual(new Set(types));
  });

  it("names folders that exist", () => {
    const rows = [...README.matchAll(/^\| `([\w-]+)` +\|.*agent +\|$/gm)];
    expect(rows).not.toEqual([]);
    for (const [, folder = ""] of rows) expect(existsSync(join(EXECUTORS, folder)), folder).toBe(true);
  });
});
