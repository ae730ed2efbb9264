import { existsSync, readFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseBlueprint } from "../../coordinator/core/blueprints/blueprint.ts";
import { TOOLS } from "../../mcp/tools.ts";
import { parseCoordinatorConfig } from "../../coordinator/config.ts";
import { parseInvocation } from "../../lib/invocation.ts";
import { parseRunnerOptions } from "../../runner/config.ts";
import { atPort, jsonSample, readmeBlock, readmeBlockNames, readmeCommands, withValues } from "../support/readme.ts";
import { until } from "../support/until.ts";
import { Home, ROOT, skipAloud } from "./programs.ts";
import type { Ended, Running } from "./programs.ts";

let home: Home;
beforeEach(() => (home = new Home()));
afterEach(() => home.close());

/** A folder that holds the program, of those on PATH. */
function folderOf(program: string): string | undefined {
  return process.env["PATH"]?.split(delimiter).find((folder) => existsSync(join(folder, program)));
}

/** A shell that stops at the first command that fails; without --norc it takes the socket of its stdin for a remote login. */
const BASH = ["bash", "--norc", "-euo", "pipefail", "-c"] as const;

const BUF_FOLDER = join(ROOT, "test/e2e/grpcurl-by-buf");

it("marks the blocks that are executed here, and no others", () => {
  const walk = ["coordinator", "register", "watch", "create", "report"].map((step) => `walk ${step}`);
  expect(readmeBlockNames()).toEqual(["ao", "curl", ...walk, "agents dev", "agents", "mcp"]);
});

describe("the commands of the README, with `ao dev` running", () => {
  /** `ao dev` as the README has it, but on a free port and with its files in the home of the test. */
  async function startDev(command = "npx ao dev") {
    const more = ["--listen", "127.0.0.1:0", "--store", home.path("store.db"), "--project-dir", home.dir];
    const dev = home.start([...BASH, `exec ${[command.replace(/^(\w+=\S+) /, "env $1 "), ...more].join(" ")}`], {
      cwd: ROOT,
    });
    const [, url = ""] = await dev.says(/coordinator +(http:\S+)[^]*stop +Ctrl/);
    const run = (script: string): Promise<Ended> => {
      const command = atPort(script, Number(new URL(url).port));
      const options = { cwd: ROOT, env: { AGENT_ORCHESTRATOR_API_URL: url } };
      return home.start([...BASH, command], options).ended;
    };
    return { dev, run };
  }

  it("start, resume, show and check, with ao", async () => {
    const { dev, run } = await startDev();
    const { stdout } = await run(readmeBlock("ao"));
    expect(stdout).toContain("start: Say hello");
    expect(stdout).toContain("resume: And again");
    expect(stdout.match(/Echo: And again/g), "from --follow, and from `sessions result`").toHaveLength(2);
    expect(stdout).toMatch(/^lnch_\w+ +online +0\/4 +test-executor/m);
    expect(stdout, "the last command was reached").toMatch(/^PASS +echo run +completed/m);
    // The doctor looks at the whole machine, where other tests have executors without a runner.
    expect(stdout.match(/^FAIL +(?!orphans).*/gm)).toBeNull();
    const [, waiting = ""] = /(run_\w+)\s+session\s+ses_\w+ +nowhere/.exec(stdout) ?? [];
    const shown = await run(`npx ao runs get ${waiting}`);
    expect(shown.stdout).toMatch(/pending .*lacks tag gpu/);
    expect(await dev.end("SIGTERM")).toBe(0);
  });

  it("start an agent with its blueprint, and a tree of agents that call back", async () => {
    const { dev, run } = await startDev(readmeBlock("agents dev").trim());
    const { code, stdout, stderr } = await run(readmeBlock("agents"));
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/^worker /m);
    expect(stdout, "the prompt is made of the parameters").toContain("topic: rain");
    expect(stdout).toContain("2 started");
    expect(stdout).toMatch(/^ses_\w+ {2}boss .*\n├─ ses_\w+ {2}one .*\n└─ ses_\w+ {2}two /m);
    const result = async () => (await run("npx ao sessions result boss")).stdout;
    await until(async () => (await result()).includes("both have called back"), "the parent was resumed");
    const tools = (await run(readmeBlock("mcp"))).stdout;
    for (const { name } of TOOLS) expect(tools).toContain(`"name":"${name}"`);
    expect(await dev.end("SIGTERM")).toBe(0);
  });

  it("make and list runs, and read the pages, with curl", async ({ skip }) => {
    if (folderOf("curl") === undefined) skipAloud(skip, "there is no curl on PATH");
    const { run } = await startDev();
    const { code, stdout, stderr } = await run(readmeBlock("curl"));
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^ready\n/);
    expect(stdout.match(/"run_id":"run_\w+"/g), "once from CreateRun, once from ListRuns").toHaveLength(2);
    expect(stdout).toMatch(/^agent_runners 1$/m);
  });
});

describe("the walk-through of the README: being the runner yourself", () => {
  /** What a person copies from an answer of grpcurl. */
  function copied(answer: string, field: string): string {
    const [, value] = new RegExp(`"${field}":\\s*"([^"]+)"`).exec(answer) ?? [];
    if (value === undefined) throw new Error(`there is no ${field} in:\n${answer}`);
    return value;
  }

  async function walk(grpcurlFolder: string): Promise<{ offered: string; report: string }> {
    // The port comes from the environment, so that the command is executed as it stands.
    const env = { AGENT_COORDINATOR_LISTEN: "127.0.0.1:0", AGENT_COORDINATOR_STORE: home.path("store.db") };
    const coordinator = home.start([...BASH, readmeBlock("walk coordinator")], { cwd: ROOT, env });
    const [, port] = await coordinator.says(/listens on http:\/\/127\.0\.0\.1:(\d+);/);
    const terminal = (step: string, values = {}): Running => {
      const script = withValues(atPort(readmeBlock(`walk ${step}`), Number(port)), values);
      const PATH = [grpcurlFolder, process.env["PATH"]].join(delimiter);
      return home.start([...BASH, script], { cwd: ROOT, env: { PATH } });
    };
    const done = async (program: Running): Promise<string> => {
      const { code, stdout, stderr } = await program.ended;
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      return stdout;
    };

    const registered = await done(terminal("register"));
    expect(registered).toMatch(/^agentrunner\.v1\.RunnerService$/m);
    expect(registered).toMatch(/ReportStatus/);
    expect(copied(registered, "runnerId")).toBe("lnch_c10689cb1b39");
    const TOKEN = copied(registered, "runnerToken");
    const stream = terminal("watch", { TOKEN });
    await stream.says(/"opened"/);
    const created = copied(await done(terminal("create")), "runId");
    await stream.says(/"offer":[^]*"leaseId":[^]*"prompt"/);
    const offered = stream.stdout().slice(stream.stdout().indexOf('"offer"'));
    expect(copied(offered, "runId")).toBe(created);
    const values = { TOKEN, RUN: copied(offered, "runId"), LEASE: copied(offered, "leaseId") };
    const stale = await done(terminal("report", { ...values, LEASE: "lease_of_an_earlier_attempt" }));
    expect(stale.match(/"kind":\s*"KIND_\w+"/g)).toEqual(stale.match(/"kind":\s*"KIND_STALE"/g));
    expect(stale).toMatch(/"state":\s*"RUN_STATE_OFFERED"/);
    const report = await done(terminal("report", values));
    const repeated = await done(terminal("report", values));
    const run = report.slice(report.indexOf('"run"'));
    expect(repeated.endsWith(run), "a repeat is answered, and changes nothing").toBe(true);
    expect((await stream.end("SIGTERM")) > 0, "the stream was open until now").toBe(true);
    return { offered, report };
  }

  function expectCompleted({ offered, report }: { offered: string; report: string }): void {
    expect(offered).toMatch(/"prompt":\s*"Say hello"/);
    expect(report.match(/"kind":\s*"KIND_OK"/g), "the accept and the outcome").toHaveLength(2);
    expect(report).toMatch(/"state":\s*"RUN_STATE_COMPLETED"/);
    expect(report).toMatch(/"result":\s*{\s*"text":\s*"hello"/);
  }

  it("leads a run to COMPLETED with grpcurl, as it is written", async ({ skip }) => {
    const folder = folderOf("grpcurl");
    if (folder === undefined) skipAloud(skip, "there is no grpcurl on PATH; the same walk with buf curl is tested");
    expectCompleted(await walk(folder));
  });

  it("leads a run to COMPLETED with buf curl, which comes with `npm ci`", async () => {
    expectCompleted(await walk(BUF_FOLDER));
  });
});

describe("what else the README says", () => {
  it("shows commands whose flags exist", () => {
    const words = (line: string) => line.split(/\s+/).slice(2);
    const coordinators = readmeCommands("npx agent-coordinator ");
    const runners = readmeCommands("npx agent-runner ");
    expect([coordinators.length, runners.length]).toEqual([2, 1]);
    for (const line of coordinators) parseCoordinatorConfig(words(line), {}, () => undefined);
    for (const line of runners) parseRunnerOptions(words(line), {}, () => undefined);
  });

  it("shows an invocation that every reader of ours accepts", () => {
    const text = jsonSample("README.md");
    expect(parseInvocation(text)).toMatchObject(JSON.parse(text));
  });

  it("names every tool, and ARCHITECTURE.md shows a blueprint without a fault", () => {
    const readme = readFileSync(join(ROOT, "README.md"), "utf8");
    expect(TOOLS.filter(({ name }) => !readme.includes(`\`${name}\``))).toEqual([]);
    const agent = jsonSample("ARCHITECTURE.md");
    const files = { agent, systemPrompt: undefined, mcp: undefined, disabled: false };
    expect(parseBlueprint("worker", files)).toMatchObject({ blueprint: { name: "worker" }, warnings: [] });
  });

  it.each(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "executors/README.md"])(
    "links to files that exist and names scripts that exist, as does %s",
    (document) => {
      const text = readFileSync(join(ROOT, document), "utf8");
      const links = Array.from(text.matchAll(/\]\((?!https?:)([^)#]+)/g), ([, link = ""]) => link);
      expect(links.filter((link) => !existsSync(join(ROOT, dirname(document), link)))).toEqual([]);
      const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { scripts: object };
      const named = Array.from(text.matchAll(/npm run ([\w:]+)/g), ([, name = ""]) => name);
      expect(named.filter((name) => !Object.hasOwn(scripts, name))).toEqual([]);
    },
  );
});
