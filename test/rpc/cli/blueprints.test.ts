import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { ao } from "../../support/ao.ts";
import { startHouse } from "../../support/blueprints.ts";
import type { AgentHouse } from "../../support/blueprints.ts";
import { startTestCoordinator, stopTestCoordinators, tempDir } from "../../support/coordinator.ts";
import { inRepository } from "../../support/paths.ts";

let house: AgentHouse;
const at = (...args: string[]) => ao(["-c", house.c.url, ...args]);

beforeEach(async () => {
  house = await startHouse();
  house.write("reviewer", {
    "agent.json": {
      description: "reads code",
      tags: ["code"],
      demands: { executor_profile: "coding" },
      parameters_schema: { type: "object", required: ["branch"] },
    },
    "agent.system-prompt.md": "You review.\nBe kind.\u001b[2J\n",
    "agent.mcp.json": { mcpServers: { git: { command: "git-mcp" } } },
  });
});
afterEach(stopTestCoordinators);

describe("ao blueprints", () => {
  it("lists blueprints on stdout and what is broken on stderr", async () => {
    house.write("off", { "agent.json": {}, ".disabled": "" });
    house.write("sick", { "agent.json": "{}}" });
    const { exitCode, stdout, stderr } = await at("blueprints");
    expect(exitCode).toBe(0);
    expect(stdout).toBe("BLUEPRINT  STATE    PROFILE  TAGS\nreviewer   enabled  coding   code  reads code\n");
    expect(stderr).toMatch(/^broken: sick: agent\.json: .*JSON/);
    expect((await at("blueprints", "ls", "--all", "--tag", "code")).stdout).not.toContain("off");
    expect((await at("blueprints", "ls", "--all")).stdout).toContain("off        disabled  any      -");
    const json = JSON.parse((await at("blueprints", "-o", "json")).stdout) as {
      blueprints: object[];
      broken: object[];
    };
    expect([json.blueprints.length, json.broken.length]).toEqual([1, 1]);
    expect((await at("blueprints", "ls", "--tag", "none")).stderr).toContain("ao blueprints create");
  });

  it("shows one as a page, its prompt with nothing that moves the cursor", async () => {
    expect((await at("blueprints", "get", "reviewer")).stdout).toBe(
      `reviewer  enabled

description  reads code
demands      profile coding
tags         code
parameters   {"type":"object","required":["branch"]}
mcp git      stdio  git-mcp

You review.
Be kind.\\x1b[2J
`,
    );
  });

  it("makes a blueprint of the JSON that get prints, and refuses a name that is taken", async () => {
    const { stdout } = await at("blueprints", "get", "reviewer", "-o", "json");
    const file = join(tempDir(), "copy.json");
    writeFileSync(file, stdout);
    expect(await at("blueprints", "create", "-f", file)).toMatchObject({
      exitCode: 4,
      stderr: expect.stringContaining("reviewer exists"),
    });
    writeFileSync(file, JSON.stringify({ ...(JSON.parse(stdout) as object), name: "copy" }));
    expect((await at("blueprints", "create", "-f", file)).exitCode).toBe(0);
    const copy = JSON.parse((await at("blueprints", "get", "copy", "-o", "json")).stdout) as object;
    expect(copy).toEqual({ ...(JSON.parse(stdout) as object), name: "copy" });
  });

  it.each([
    ["that is not there", undefined, /cannot read a blueprint from .*ENOENT/],
    ["that is no JSON", "{", /JSON/],
    ["with an unknown key", '{"nam": "x"}', /nam/],
    [
      "with a large integer",
      '{"name": "x", "output_schema": {"const": 1029384756610293847}}',
      /1029384756610293847 .*string/,
    ],
    ["in Latin-1", Buffer.from('{"name": "caf\xe9"}', "latin1"), /b\.json: it is not UTF-8 text/],
    [
      "with a deep schema",
      `{"name": "x", "output_schema": ${'{"a":'.repeat(40)}1${"}".repeat(40)}}`,
      /nested more than 24/,
    ],
  ])("says what is wrong with a file %s: exit 2", async (_, text, message) => {
    const file = join(tempDir(), "b.json");
    if (text !== undefined) writeFileSync(file, text);
    expect(await at("blueprints", "create", "-f", file)).toMatchObject({
      exitCode: 2,
      stderr: expect.stringMatching(message),
    });
  });

  it("reads a file that begins with a byte order mark", async () => {
    const file = join(tempDir(), "b.json");
    writeFileSync(file, '\ufeff{"name": "notepad"}');
    expect((await at("blueprints", "create", "-f", file)).exitCode).toBe(0);
    expect((await at("blueprints", "rm", "notepad")).exitCode).toBe(0);
  });

  it("disables, enables and removes", async () => {
    expect(await at("blueprints", "disable", "reviewer")).toMatchObject({
      exitCode: 0,
      stderr: "reviewer is disabled\n",
    });
    const refused = await at("start", "--agent", "reviewer", "--parameters", '{"branch":"main"}');
    expect(refused).toMatchObject({ exitCode: 4, stdout: "" });
    expect(refused.stderr).toContain("`ao blueprints enable reviewer` lets it run");
    expect(refused.stderr).not.toContain("hint");
    expect((await at("blueprints", "enable", "reviewer")).exitCode).toBe(0);
    expect((await at("start", "--agent", "reviewer", "--parameters", '{"branch":"main"}')).exitCode).toBe(0);
    expect((await at("blueprints", "rm", "reviewer")).stderr).toBe("reviewer is removed\n");
    expect(await at("blueprints", "rm", "reviewer")).toMatchObject({ exitCode: 7 });
    expect(readdirSync(house.dir)).toEqual([]);
  });
});

describe("ao start --agent", () => {
  it.each(["--parameters", "--metadata"])("refuses numbers in %s that a double cannot hold: exit 2", async (option) => {
    for (const number of ["1029384756610293847", "1e400"]) {
      const refused = await at("start", "--agent", "reviewer", "--prompt", "x", option, `{"channel_id": ${number}}`);
      expect(refused).toMatchObject({ exitCode: 2, stdout: "" });
      expect(refused.stderr).toMatch(new RegExp(`${option}.*${number}.*write it as a string`, "s"));
    }
  });

  it("makes a run of the agent, whose text may come from its parameters", async () => {
    expect((await at("start", "r", "--agent", "reviewer", "--parameters", '{"branch":"main"}')).exitCode).toBe(0);
    const [run] = (await house.c.runs.listRuns({})).runs;
    expect(await house.c.run(run?.runId ?? "")).toMatchObject({
      state: RunState.PENDING,
      agentName: "reviewer",
      prompt: "<inputs>\nbranch: main\n</inputs>",
      demands: { executorProfile: "coding" },
    });
    expect((await at("runs", "get", run?.runId ?? "")).stdout).toMatch(/^agent +reviewer$/m);
    expect((await at("sessions", "get", "r")).stdout).toMatch(/^agent +reviewer$/m);
  });

  it("says what is missing: a prompt without parameters, parameters that do not fit, an agent that is not there", async () => {
    expect(await at("start", "--agent", "reviewer")).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining("a run needs a prompt"),
    });
    const wrong = await at("start", "--agent", "reviewer", "--parameters", '{"b":1}');
    expect(wrong.exitCode).not.toBe(0);
    expect(wrong.stderr).toContain("parameters must have required property 'branch'");
    const unknown = await at("start", "--agent", "reviwer", "--prompt", "x");
    expect(unknown).toMatchObject({ exitCode: 7, stderr: expect.stringContaining("did you mean reviewer?") });
  });
});

describe("the example agents", () => {
  it("are good blueprints", async () => {
    const agentsDir = inRepository("examples/agents");
    const c = await startTestCoordinator({ agentsDir });
    const { stdout, stderr } = await ao(["-c", c.url, "blueprints"]);
    expect(stderr).toBe("");
    expect(stdout).toMatch(/^orchestrator .*\nworker /m);
    expect(c.logged.filter(({ level }) => level === "warn")).toEqual([]);
    await c.create({ agentName: "worker", prompt: "", parameters: { topic: "cats" } });
  });
});
