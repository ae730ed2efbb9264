import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ExecutorOutput_Stream } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { ao, onTerminal, startAo } from "../../support/ao.ts";
import { FakeCoordinator } from "../../support/fake-run-service.ts";
import { until } from "../../support/until.ts";

let fake: FakeCoordinator;
beforeEach(async () => {
  fake = await new FakeCoordinator().start();
});
afterEach(async () => {
  await fake.stop();
});

const HOSTILE = "\u001b]0;HACKED\u0007\u001b[2J\u001b[31mred\u001b[0m\rover\u202e\n";

function hostileRun() {
  const run = fake.addRun({ state: RunState.RUNNING, sessionName: "a\u001b[2Jb", message: "" });
  // Sequences that are cut between two chunks, and the other stream in between.
  for (const text of ["\u001b]0;HA", "CKED\u0007\u001b[2"]) fake.print(run, text);
  fake.say(run, { case: "output", value: { stream: ExecutorOutput_Stream.STDERR, text: "\u001b[5Aerr" } });
  fake.print(run, "J\u001b[31mred\u001b[0m\rover\u202e\n");
  fake.say(run, { case: "message", value: { role: "as\u0007sistant", text: HOSTILE } });
  fake.move(run, RunState.COMPLETED, { result: { text: HOSTILE, data: { a: HOSTILE } }, message: HOSTILE });
  return run;
}

// eslint-disable-next-line no-control-regex
const OBEYED = /\u001b(?!\[[\d;]*m)|[\u0000-\u0008\u000b-\u001a\u001c-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

describe("a terminal", () => {
  it.each([
    ["runs logs", ["runs", "logs", "run_1"]],
    ["runs logs --all", ["runs", "logs", "run_1", "--all"]],
    ["runs logs -f", ["runs", "logs", "run_1", "-f"]],
    ["runs get", ["runs", "get", "run_1"]],
    ["runs get -o json", ["runs", "get", "run_1", "-o", "json"]],
    ["runs ls", ["runs", "ls"]],
    ["sessions", ["sessions"]],
    ["sessions get", ["sessions", "get", "ses_1"]],
    ["sessions tree", ["sessions", "tree", "ses_1"]],
    ["sessions events", ["sessions", "events", "ses_1"]],
    ["sessions result", ["sessions", "result", "ses_1"]],
  ])("gets nothing that it obeys but colours from ao %s", async (_what, args) => {
    hostileRun();
    const shown = startAo(["-c", fake.url, ...args], {}, "", 80);
    await shown.exit;
    expect(shown.stdout()).not.toMatch(OBEYED);
    expect(shown.stdout().length).toBeGreaterThan(5);
  });

  it("gets the words and colours of the output", async () => {
    hostileRun();
    expect(await onTerminal(80, ["-c", fake.url, "--color", "always", "runs", "logs", "run_1"])).toContain(
      "\u001b[31mred\u001b[0m\nover\n",
    );
  });

  it("gets everything with --raw, and a pipe gets it always", async () => {
    hostileRun();
    const raw = ["\u001b]0;HACKED\u0007\u001b[2", "\u001b[5Aerr", "J\u001b[31mred\u001b[0m\rover\u202e\n"];
    expect(await onTerminal(80, ["-c", fake.url, "--raw", "runs", "logs", "run_1"])).toContain(raw.join(""));
    expect((await ao(["-c", fake.url, "--raw", "runs", "logs", "run_1"])).stdout).toContain(raw.join(""));
    expect((await ao(["-c", fake.url, "runs", "logs", "run_1"])).stdout).toContain(raw.join("\n"));
  });

  it.each([
    ["a terminal", (args: string[]) => onTerminal(80, args)],
    ["a pipe", async (args: string[]) => (await ao(args)).stdout],
  ])("gets no line of two streams: %s", async (_, shown) => {
    const run = fake.addRun({ state: RunState.RUNNING });
    const stderr = (text: string) =>
      fake.say(run, { case: "output", value: { stream: ExecutorOutput_Stream.STDERR, text } });
    fake.print(run, "50 %");
    fake.print(run, " done");
    stderr("warning\n");
    fake.print(run, "100 %");
    fake.say(run, { case: "message", value: { role: "assistant", text: "ready" } });
    stderr("bye");
    fake.move(run, RunState.COMPLETED, {});
    const text = await shown(["-c", fake.url, "--color", "never", "runs", "logs", "run_1"]);
    expect(text).toContain("50 % done\nwarning\n100 %\nassistant: ready\nbye");
  });

  it("shows a note on a line of its own when a line of output is open", async () => {
    const following = startAo(["-c", fake.url, "--color", "never", "start", "--prompt", "x", "-f"], {}, "", 80);
    const run = await until(() => fake.runs[0], "the run is made");
    fake.print(run, "no line end");
    fake.move(run, RunState.COMPLETED, {});
    await following.exit;
    expect(following.stdout()).toMatch(/^no line end\n\S+ completed\ncompleted$/m);
  });
});

describe("-q and -o name", () => {
  it("say nothing but the data, and the names alone", async () => {
    fake.addRun({ state: RunState.COMPLETED });
    const names = await ao(["-c", fake.url, "-q", "-o", "name", "runs"]);
    expect(names).toEqual({ exitCode: 0, stdout: "run_1\n", stderr: "" });
    expect(await ao(["-c", fake.url, "-q", "sessions", "result", "ses_1"])).toMatchObject({ stderr: "" });
    expect((await ao(["-c", fake.url, "-q", "runs", "get", "nix"])).stderr).toMatch(/^error: /);
  });
});
