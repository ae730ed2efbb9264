import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FailureReason, InvocationMode, RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { ao, startAo } from "../../support/ao.ts";
import { FakeCoordinator } from "../../support/fake-run-service.ts";
import { OFFER_UNDER_WAY } from "../../../lib/protocol/pending.ts";
import { until } from "../../support/until.ts";

let fake: FakeCoordinator;
let dir: string;
const at = (...args: string[]) => ao(["-c", fake.url, ...args]);

beforeEach(async () => {
  fake = await new FakeCoordinator().start();
  dir = await mkdtemp(join(tmpdir(), "ao-cli-"));
});
afterEach(async () => {
  await fake.stop();
  await rm(dir, { recursive: true, force: true });
});

describe("ao start", () => {
  it("sends what its options say and prints the run and its session", async () => {
    const demands = ["--profile", "p", "--tag", "a", "--tag", "b", "--hostname", "h", "--project-dir", "sub"];
    const limits = ["--timeout", "10m", "--idle-timeout", "1m30s", "--lost-after", "500ms"];
    const policy = ["--on-lost", "retry", "--max-attempts", "5"];
    const data = ["--metadata", '{"k":1}', "--parameters", '{"p":true}'];
    const { exitCode, stdout, stderr } = await at(
      ...["start", "build", "--prompt", "do it"].concat(demands, limits, policy, data),
    );
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toBe("run      run_1\nsession  ses_1  build\n");
    expect(fake.created[0]).toMatchObject({
      sessionName: "build",
      mode: InvocationMode.START,
      prompt: "do it",
      projectDir: resolve("sub"),
      demands: { executorProfile: "p", hostname: "h", tags: ["a", "b"] },
      onLost: { policy: 2, maxAttempts: 5 },
      timeout: { seconds: 600n },
      idleTimeout: { seconds: 90n },
      lostAfter: { seconds: 0n, nanos: 500_000_000 },
      metadata: { k: 1 },
      parameters: { p: true },
    });
    expect(fake.created[0]?.requestId).toMatch(/^ao-[0-9a-f]{12}-[0-9a-f]{28}$/);
  });

  it("leaves out what is not asked for", async () => {
    await at("start", "--prompt", "do it");
    expect(fake.created[0]).toMatchObject({ sessionName: "", projectDir: "", anyRunner: false });
    for (const field of ["demands", "onLost", "timeout", "idleTimeout", "lostAfter", "metadata", "parameters"] as const)
      expect(fake.created[0]?.[field]).toBeUndefined();
  });

  it("reads the prompt from a file and from stdin", async () => {
    await writeFile(join(dir, "prompt.md"), "from a file\n");
    expect((await at("start", "--prompt-file", join(dir, "prompt.md"))).exitCode).toBe(0);
    for (const flags of [
      ["--prompt-file", "-"],
      ["--prompt", "-"],
    ]) {
      expect((await ao(["-c", fake.url, "start", ...flags], {}, "from stdin")).exitCode).toBe(0);
    }
    expect(fake.created.map(({ prompt }) => prompt)).toEqual(["from a file\n", "from stdin", "from stdin"]);
  });

  it("says on a terminal that it reads the prompt from there", async () => {
    const terminal = startAo(["-c", fake.url, "start", "-p", "-"], {}, "typed", 80);
    expect(await terminal.exit).toBe(0);
    expect(terminal.stderr()).toMatch(/reading the prompt from the terminal; Ctrl\+D .* ends it\n/);
    expect((await ao(["-c", fake.url, "start", "-p", "-"], {}, "piped")).stderr).toBe("");
    const quiet = startAo(["-q", "-c", fake.url, "start", "-p", "-"], {}, "typed", 80);
    expect([await quiet.exit, quiet.stderr()]).toEqual([0, ""]);
  });

  it("repeats an unanswered request under the same request id, so that one run is made", async () => {
    fake.failures.push(new ConnectError("busy", Code.Unavailable), new ConnectError("busy", Code.Unavailable));
    expect((await at("start", "--prompt", "x")).exitCode).toBe(0);
    expect(fake.created).toHaveLength(3);
    expect(new Set(fake.created.map(({ requestId }) => requestId)).size).toBe(1);
    expect(fake.runs).toHaveLength(1);
  });

  it("speaks with the token of its run when an executor calls it", async () => {
    await ao(["start", "--prompt", "x"], { AGENT_ORCHESTRATOR_API_URL: fake.url, AGENT_ORCHESTRATOR_TOKEN: "rt_1" });
    await at("start", "--prompt", "x");
    expect(fake.tokens).toEqual(["Bearer rt_1", null]);
  });

  it("prints the run as JSON with the names of the .proto files", async () => {
    const { stdout } = await at("start", "named", "--prompt", "x", "-o", "json");
    expect(JSON.parse(stdout)).toMatchObject({ run_id: "run_1", session_name: "named", state: "RUN_STATE_PENDING" });
  });

  it.each([
    ["no prompt", ["start"]],
    ["an empty prompt", ["start", "--prompt", " "]],
    ["two prompts", ["start", "--prompt", "x", "--prompt-file", "y"]],
    ["a prompt file that is not there", ["start", "--prompt-file", "/nowhere/x"]],
    ["a long option with one dash", ["start", "x", "-profile", "y"]],
    ["a long option with one dash and its value", ["start", "x", "-prompt=y"]],
    ["an unknown option", ["start", "--prompt", "x", "--agnt", "y"]],
    ["a second name", ["start", "a", "b", "--prompt", "x"]],
    ["a bad duration", ["start", "--prompt", "x", "--timeout", "soon"]],
    ["metadata that is no object", ["start", "--prompt", "x", "--metadata", "[1]"]],
    ["metadata that is no JSON", ["start", "--prompt", "x", "--metadata", "{"]],
    ["an empty directory", ["start", "--prompt", "x", "--project-dir", ""]],
    ["attempts without a policy", ["start", "--prompt", "x", "--max-attempts", "2"]],
    ["an unknown policy", ["start", "--prompt", "x", "--on-lost", "shrug"]],
    ["a URL that is none", ["-c", "localhost:1", "runs", "ls"]],
    ["an unknown verb", ["begin"]],
    ["an unknown format", ["runs", "ls", "-o", "xml"]],
    ["an unknown state", ["runs", "ls", "--state", "asleep"]],
    ["a limit of none", ["runs", "ls", "--limit", "0"]],
    ["no age to prune", ["runs", "prune"]],
    ["logs as one JSON document", ["runs", "logs", "run_1", "-o", "json"]],
    ["events as one JSON document", ["sessions", "events", "x", "-o", "json"]],
    ["half a character in JSON", ["start", "--prompt", "x", "--parameters", '{"a":"\\ud83d"}']],
    ["an empty session name", ["resume", "", "--prompt", "x"]],
  ])("takes %s as a usage error: exit 2, nothing sent", async (_what, args) => {
    const { exitCode, stdout, stderr } = await ao(["-c", fake.url, ...args]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
    expect(stderr).toMatch(args.includes("json") ? /^{"error":{"code":"invalid_argument",/ : /^error: /);
    expect(fake.created).toEqual([]);
  });

  it("refuses a prompt that is not UTF-8, or larger than a run may be", async () => {
    await writeFile(join(dir, "bytes"), Buffer.from([0xff, 0xfe]));
    const bytes = await at("start", "--prompt-file", join(dir, "bytes"));
    expect(bytes).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("not UTF-8") });
    const large = await ao(["-c", fake.url, "start", "--prompt", "-"], {}, "x".repeat(3 * 1024 * 1024 + 1));
    expect(large).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("larger than") });
  });
});

describe("ao resume", () => {
  it("takes a name, or an id that begins with ses_", async () => {
    await at("resume", "build", "--prompt", "more");
    fake.addRun({ sessionId: "ses_9" });
    await at("resume", "ses_9", "--prompt", "more", "--any-runner");
    expect(fake.created[0]).toMatchObject({ sessionName: "build", sessionId: "", anyRunner: false });
    expect(fake.created[1]).toMatchObject({ sessionName: "", sessionId: "ses_9", anyRunner: true });
    expect(fake.created.every(({ mode }) => mode === InvocationMode.RESUME)).toBe(true);
  });
});

describe("ao start, without following", () => {
  it("says at once that no runner takes the run, and when it fails for that", async () => {
    fake.onCreate = {
      pendingReasons: ["no runner matches: 1 runner", "lnch_a has executor profile x, not y"],
      noMatchAt: timestampFromMs(Date.now() + 300_000),
    };
    const { exitCode, stdout, stderr } = await at("start", "--prompt", "x", "--profile", "y");
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^run +run_1\nsession +ses_1\n$/);
    expect(stderr).toMatch(
      /^pending: no runner matches: 1 runner \(fails in [45] min.* unless a runner that matches registers\): lnch_a has/,
    );
    expect((await at("-q", "start", "--prompt", "x")).stderr).toBe("");
  });

  it("is made all the same when it cannot be asked whether a runner takes it", async () => {
    fake.failures.push(undefined, new ConnectError("no", Code.PermissionDenied));
    const { exitCode, stdout, stderr } = await at("start", "--prompt", "x");
    expect([exitCode, stdout]).toEqual([0, expect.stringContaining("run_1")]);
    expect(stderr).toMatch(/^whether a runner takes it cannot be told now: .*no/);
  });

  it("says nothing of a run that is being given to a runner", async () => {
    fake.onCreate = { pendingReasons: [OFFER_UNDER_WAY] };
    expect((await at("start", "--prompt", "x")).stderr).toBe("");
  });
});

describe("ao start --follow", () => {
  it.each([
    [RunState.COMPLETED, 0],
    [RunState.FAILED, 1],
    [RunState.STOPPED, 5],
  ])(
    "shows output on stdout, states on stderr, and ends as the run does: state %i is exit %i",
    async (state, wanted) => {
      const following = startAo(["-c", fake.url, "start", "--prompt", "x", "--follow"]);
      const run = await until(() => fake.runs[0], "the run is made");
      fake.move(run, RunState.CLAIMED, { runnerId: "lnch_a", attempt: 1 });
      fake.print(run, "half a line");
      await until(() => following.stdout() === "half a line", "output is shown as it comes");
      fake.say(run, { case: "message", value: { role: "assistant", text: "hello" } });
      fake.say(run, { case: "result", value: { text: "the result" } });
      fake.move(run, state, {
        failure: state === RunState.FAILED ? FailureReason.EXECUTOR_EXIT : 0,
        result: { text: "the result" },
      });
      expect(await following.exit).toBe(wanted);
      expect(following.stdout()).toBe("half a line\nassistant: hello\nthe result\n");
      expect(following.stderr()).toContain("run      run_1\n");
      expect(following.stderr()).toContain("07:50:12.123 claimed by lnch_a\n");
      expect(following.stderr()).not.toContain("the result");
    },
  );

  it("does not repeat a result that is the output", async () => {
    const following = startAo(["-c", fake.url, "start", "--prompt", "x", "--follow"]);
    const run = await until(() => fake.runs[0], "the run is made");
    fake.print(run, "plain\n");
    fake.move(run, RunState.COMPLETED, { result: { text: "plain\n" } });
    expect(await following.exit).toBe(0);
    expect(following.stdout()).toBe("plain\n");
  });

  it("prints the ended run alone with -o json, and every message with jsonl", async () => {
    const following = ["json", "jsonl"].map((form) =>
      startAo(["-c", fake.url, "start", "--prompt", "x", "-f", "-o", form]),
    );
    await until(() => fake.watched.length === 2, "both follow");
    for (const run of fake.runs) {
      fake.print(run, "text");
      fake.move(run, RunState.COMPLETED);
    }
    expect(await Promise.all(following.map(({ exit }) => exit))).toEqual([0, 0]);
    expect(JSON.parse(following[0]!.stdout())).toMatchObject({
      run_id: expect.any(String),
      state: "RUN_STATE_COMPLETED",
    });
    const lines = following[1]!.stdout().trimEnd().split("\n");
    expect(lines.map((line) => Object.keys(JSON.parse(line) as object).at(-1))).toEqual([
      "run",
      "event",
      "event",
      "run",
    ]);
  });

  it("ends as its run when the coordinator is gone before it can say what comes after it", async () => {
    const following = startAo(["-c", fake.url, "start", "--prompt", "x", "--follow"]);
    await until(() => fake.watched.length === 1, "it follows");
    fake.failures.push(...Array.from({ length: 1_000 }, () => new ConnectError("restarting", Code.Unavailable)));
    fake.move(fake.runs[0]!, RunState.COMPLETED);
    expect(await following.exit).toBe(0);
    expect(following.stderr()).toContain("whether callbacks resume ses_1 is not known: [unavailable] restarting\n");
  });

  it("fails for what repeating does not change, such as a run that is deleted as it ends", async () => {
    const following = startAo(["-c", fake.url, "start", "--prompt", "x", "--follow"]);
    await until(() => fake.watched.length === 1, "it follows");
    fake.failures.push(new ConnectError("no run run_1", Code.NotFound));
    fake.move(fake.runs[0]!, RunState.COMPLETED);
    expect(await following.exit).toBe(7);
  });

  it("leaves the run alone at Ctrl+C, says how to stop it, and exits 130", async () => {
    const following = startAo(["-c", fake.url, "start", "--prompt", "x", "--follow"]);
    await until(() => fake.watched.length === 1, "it follows");
    following.interrupt();
    expect(await following.exit).toBe(130);
    expect(following.stderr()).toContain("`ao stop run_1` stops it");
    expect(fake.runs[0]?.state).toBe(RunState.PENDING);
  });
});
