import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterEach, describe, expect, it } from "vitest";
import type { AgentBlueprintSchema } from "../../../../gen/agentrunner/v1/blueprint_pb.ts";
import { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import { refusal, startHouse } from "../../../support/blueprints.ts";
import type { AgentHouse } from "../../../support/blueprints.ts";
import { present, stopTestCoordinators, tempDir } from "../../../support/coordinator.ts";
import { RawRunner } from "../../../support/raw-runner.ts";

afterEach(stopTestCoordinators);

type NewBlueprint = MessageInitShape<typeof AgentBlueprintSchema>;

const names = async ({ blueprints }: AgentHouse, query = {}): Promise<string[]> =>
  (await blueprints.listBlueprints(query)).blueprints.map(({ name }) => name);

const mask = (...paths: string[]) => create(FieldMaskSchema, { paths });

describe("the directory of blueprints", () => {
  it("need not be there, and is read anew at every call", async () => {
    const house = await startHouse();
    expect(await names(house)).toEqual([]);
    house.write("reviewer", { "agent.json": { description: "one" } });
    expect(await names(house)).toEqual(["reviewer"]);
    house.write("reviewer", { "agent.json": { description: "two" }, "agent.system-prompt.md": "You review." });
    const { blueprint } = await house.blueprints.getBlueprint({ name: "reviewer" });
    expect(blueprint).toMatchObject({
      name: "reviewer",
      description: "two",
      systemPrompt: "You review.",
      enabled: true,
    });
    rmSync(join(house.dir, "reviewer"), { recursive: true });
    expect(await refusal(house.blueprints.getBlueprint({ name: "reviewer" }))).toBe(
      `NotFound: no agent blueprint reviewer; there are none in ${house.dir}`,
    );
  });

  it("lists by name those that have all tags, and those that are disabled when asked", async () => {
    const house = await startHouse();
    house.write("b", { "agent.json": { tags: ["x", "y"] } });
    house.write("a", { "agent.json": { tags: ["x"] } });
    house.write("off", { "agent.json": { tags: ["x", "y"] }, ".disabled": "" });
    expect(await names(house)).toEqual(["a", "b"]);
    expect(await names(house, { tags: ["x", "y"] })).toEqual(["b"]);
    expect(await names(house, { tags: ["y"], includeDisabled: true })).toEqual(["b", "off"]);
    expect(present((await house.blueprints.getBlueprint({ name: "off" })).blueprint).enabled).toBe(false);
  });

  it("lists a page at a time, each blueprint and each broken one once", async () => {
    const house = await startHouse();
    for (let i = 0; i < 5; i += 1) house.write(`agent${i}`, { "agent.json": i === 2 ? "{" : {} });
    const pages: string[][] = [];
    let pageToken = "";
    do {
      const answer = await house.blueprints.listBlueprints({ pageSize: 2, pageToken });
      pages.push([...answer.blueprints, ...answer.broken].map(({ name }) => name));
      pageToken = answer.nextPageToken;
    } while (pageToken !== "");
    expect(pages).toEqual([["agent0", "agent1"], ["agent3", "agent2"], ["agent4"]]);
    expect(await refusal(house.blueprints.listBlueprints({ pageToken: "x" }))).toBe(
      "InvalidArgument: not a page token: x",
    );
  });

  it("ends a page early when its blueprints are large, so that it fits a message", async () => {
    const house = await startHouse();
    for (let i = 0; i < 8; i += 1)
      house.write(`big${i}`, { "agent.json": {}, "agent.system-prompt.md": "x".repeat(500_000) });
    const first = await house.blueprints.listBlueprints({});
    expect(first.blueprints).toHaveLength(4);
    const second = await house.blueprints.listBlueprints({ pageToken: first.nextPageToken });
    expect([second.blueprints.length, second.nextPageToken]).toEqual([4, ""]);
  });

  it("reports what is broken, with the file and the reason, and shows all others", async () => {
    const house = await startHouse();
    const outside = tempDir();
    writeFileSync(join(outside, "agent.json"), "{}");
    house.write("good", { "agent.json": {} });
    house.write("bad json", { "agent.json": {} });
    house.write("bad-demands", { "agent.json": { demands: 7 } });
    house.write("bad-incomplete", { "agent.system-prompt.md": "You are lost." });
    house.write("bad-latin1", { "agent.json": {} });
    writeFileSync(join(house.dir, "bad-latin1", "agent.system-prompt.md"), Buffer.from("You are caf\xe9.", "latin1"));
    house.write("good-bom", {
      "agent.json": '\ufeff{"description":"saved by Notepad"}',
      "agent.system-prompt.md": "\ufeffYou.",
    });
    house.write("bad-link", {});
    symlinkSync(join(outside, "agent.json"), join(house.dir, "bad-link", "agent.json"));
    symlinkSync(outside, join(house.dir, "bad-linked-dir"));
    symlinkSync(join(outside, "nowhere"), join(house.dir, "bad-dangling"));
    house.write("bad-pipe", {});
    execFileSync("mkfifo", [join(house.dir, "bad-pipe", "agent.json")]);
    house.write("bad-size", { "agent.json": {}, "agent.system-prompt.md": "x".repeat(524_289) });
    // Links inside the directory are fine; what is no directory is none of ours.
    mkdirSync(join(house.dir, "linked"));
    symlinkSync(join(house.dir, "good", "agent.json"), join(house.dir, "linked", "agent.json"));
    writeFileSync(join(house.dir, "README.md"), "hello");
    for (const folder of [".git", "empty", "node_modules/.bin"])
      mkdirSync(join(house.dir, folder), { recursive: true });
    symlinkSync(join(house.dir, "README.md"), join(house.dir, "link-to-a-file"));
    const { blueprints, broken } = await house.blueprints.listBlueprints({});
    expect(blueprints.map(({ name }) => name)).toEqual(["good", "good-bom", "linked"]);
    expect(blueprints[1]).toMatchObject({ description: "saved by Notepad", systemPrompt: "You." });
    expect(Object.fromEntries(broken.map(({ name, error }) => [name, error]))).toEqual({
      "bad json": "the name of a blueprint is 1 to 60 letters, digits, _ and -, the first a letter or a digit",
      "bad-demands": "agent.json: demands: expected an object, found 7",
      "bad-incomplete": "agent.json is missing",
      "bad-latin1": "agent.system-prompt.md is not UTF-8 text (line 1): save it as UTF-8",
      "bad-link": expect.stringMatching(/^agent\.json is a link that leads out of /),
      "bad-linked-dir": expect.stringMatching(/^the directory is a link that leads out of /),
      "bad-dangling": expect.stringMatching(/^it cannot be read: ENOENT/),
      "bad-pipe": "agent.json is not a file",
      "bad-size": "agent.system-prompt.md has 524289 bytes; at most 524288 are read",
    });
    expect(await refusal(house.blueprints.getBlueprint({ name: "bad-demands" }))).toBe(
      "FailedPrecondition: agent blueprint bad-demands is broken: agent.json: demands: expected an object, found 7",
    );
  });

  it("leaves folders of something else alone: they are no blueprints, and nothing is removed from them", async () => {
    const house = await startHouse();
    mkdirSync(join(house.dir, "node_modules", "left-pad"), { recursive: true });
    const name = "node_modules";
    expect(await refusal(house.blueprints.getBlueprint({ name }))).toMatch(
      /^NotFound: no agent blueprint node_modules/,
    );
    expect(await refusal(house.blueprints.deleteBlueprint({ name }))).toMatch(/^NotFound: /);
    expect(await refusal(house.blueprints.updateBlueprint({ blueprint: { name } }))).toMatch(/^NotFound: /);
    expect(await refusal(house.blueprints.createBlueprint({ blueprint: { name } }))).toMatch(
      /^AlreadyExists: a folder node_modules is there, of something else/,
    );
    expect(readdirSync(join(house.dir, name))).toEqual(["left-pad"]);
  });

  it("that cannot be read is said to be so", async () => {
    const house = await startHouse();
    writeFileSync(house.dir, "a file");
    expect(await refusal(house.blueprints.listBlueprints({}))).toMatch(
      /^FailedPrecondition: .*cannot be read.*ENOTDIR/,
    );
    expect(await refusal(house.blueprints.createBlueprint({ blueprint: { name: "a" } }))).toMatch(
      /^ResourceExhausted: .*cannot be written.*ENOTDIR/,
    );
  });

  it("logs each warning once: the old name executor_type, and keys that are ignored", async () => {
    const house = await startHouse();
    house.write("old", { "agent.json": { demands: { executor_type: "claude-code" }, skills: ["x"] } });
    for (let i = 0; i < 3; i += 1) {
      const { blueprint } = await house.blueprints.getBlueprint({ name: "old" });
      expect(blueprint?.demands?.executorProfile).toBe("claude-code");
    }
    const warnings = house.c.logged.filter((line) => line["agent"] === "old").map((line) => line["msg"]);
    expect(warnings).toEqual([
      "agent.json: skills is not known and ignored",
      "agent.json: demands.executor_type is the old name of executor_profile and read as that",
    ]);
  });
});

const REVIEWER: NewBlueprint = {
  name: "reviewer",
  description: "reads code",
  systemPrompt: "You review.",
  mcpServers: { git: { type: "stdio", command: "git-mcp", args: ["-v"] } },
  demands: { executorProfile: "coding", tags: ["docker"] },
  parametersSchema: { type: "object" },
  tags: ["code"],
};

describe("a blueprint", () => {
  it("is made as files that people can edit, enabled, and refused when the name is taken", async () => {
    const house = await startHouse();
    const { blueprint } = await house.blueprints.createBlueprint({ blueprint: REVIEWER });
    expect(blueprint).toMatchObject({ ...REVIEWER, enabled: true });
    const path = join(house.dir, "reviewer");
    expect(readdirSync(house.dir), "nothing else is left").toEqual(["reviewer"]);
    expect(readdirSync(path).sort()).toEqual(["agent.json", "agent.mcp.json", "agent.system-prompt.md"]);
    expect(JSON.parse(readFileSync(join(path, "agent.json"), "utf8"))).toEqual({
      name: "reviewer",
      description: "reads code",
      demands: { executor_profile: "coding", tags: ["docker"] },
      tags: ["code"],
      parameters_schema: { type: "object" },
    });
    expect((await house.blueprints.getBlueprint({ name: "reviewer" })).blueprint).toEqual(blueprint);
    expect(await refusal(house.blueprints.createBlueprint({ blueprint: REVIEWER }))).toMatch(
      /^AlreadyExists: .*reviewer exists/,
    );
  });

  it.each([
    ["a name that leads out", { name: "../x" }, /the name of a blueprint is/],
    ["an absolute name", { name: "/tmp/x" }, /the name of a blueprint is/],
    ["a hidden name", { name: ".git" }, /the name of a blueprint is/],
    ["no name", { name: "" }, /the name of a blueprint is/],
    ["a schema that is none", { name: "a", outputSchema: { type: 7 } }, /output_schema: not a JSON Schema/],
    [
      "a server without a url",
      { name: "a", mcpServers: { s: { type: "http" } } },
      /agent\.mcp\.json: mcpServers\.s\.url/,
    ],
    ["a large prompt", { name: "a", systemPrompt: "x".repeat(524_289) }, /at most 524288 bytes/],
    ["a long demand", { name: "a", demands: { hostname: "h".repeat(300) } }, /hostname/],
  ] as const)("with %s is refused and leaves nothing behind", async (_, blueprint, text) => {
    const house = await startHouse();
    expect(await refusal(house.blueprints.createBlueprint({ blueprint }))).toMatch(/^InvalidArgument: /);
    expect(await refusal(house.blueprints.createBlueprint({ blueprint }))).toMatch(text);
    expect(existsSync(house.dir)).toBe(false);
  });

  it("is made once when many make it at the same time, at two coordinators with the same directory", async () => {
    const house = await startHouse();
    const other = await startHouse({ agentsDir: house.dir });
    const calls = Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? house : other));
    const made = await Promise.all(
      calls.map(({ blueprints }) => refusal(blueprints.createBlueprint({ blueprint: REVIEWER })).catch(() => "made")),
    );
    expect(made.filter((answer) => answer === "made")).toHaveLength(1);
    expect(made.filter((answer) => answer.startsWith("AlreadyExists"))).toHaveLength(19);
    expect(readdirSync(house.dir)).toEqual(["reviewer"]);
  });

  it("is changed in the fields that the mask names, or in all; unknown keys stay with a mask", async () => {
    const house = await startHouse();
    await house.blueprints.createBlueprint({ blueprint: REVIEWER });
    house.write("reviewer", { "agent.json": { description: "by hand", skills: ["x"], tags: ["code"] } });
    const change = { name: "reviewer", description: "by RPC", systemPrompt: "", tags: ["other"], enabled: false };
    await house.blueprints.updateBlueprint({ blueprint: change, updateMask: mask("description", "enabled") });
    const { blueprint } = await house.blueprints.getBlueprint({ name: "reviewer" });
    expect(blueprint).toMatchObject({
      description: "by RPC",
      systemPrompt: "You review.",
      tags: ["code"],
      enabled: false,
    });
    expect(JSON.parse(readFileSync(join(house.dir, "reviewer", "agent.json"), "utf8"))).toHaveProperty("skills");
    const { blueprint: whole } = await house.blueprints.updateBlueprint({ blueprint: { ...change, enabled: true } });
    expect(whole).toMatchObject({ ...change, enabled: true, mcpServers: {} });
    expect(readdirSync(join(house.dir, "reviewer"))).toEqual(["agent.json"]);
    expect(readFileSync(join(house.dir, "reviewer", "agent.json"), "utf8")).not.toContain("skills");
  });

  it("keeps every change when several make one at the same time", async () => {
    const house = await startHouse();
    await house.blueprints.createBlueprint({ blueprint: REVIEWER });
    const changed = {
      name: "reviewer",
      description: "new",
      tags: ["new"],
      demands: { hostname: "new" },
      systemPrompt: "new",
    };
    const fields = ["description", "tags", "demands", "system_prompt"];
    await Promise.all(
      fields.map((field) => house.blueprints.updateBlueprint({ blueprint: changed, updateMask: mask(field) })),
    );
    expect((await house.blueprints.getBlueprint({ name: "reviewer" })).blueprint).toMatchObject(changed);
  });

  it("is not changed when the change is wrong", async () => {
    const house = await startHouse();
    const { blueprint } = await house.blueprints.createBlueprint({ blueprint: REVIEWER });
    const wrong = { name: "reviewer", outputSchema: { type: 7 }, description: "new" };
    const change = (updateMask: ReturnType<typeof mask>) =>
      refusal(house.blueprints.updateBlueprint({ blueprint: wrong, updateMask }));
    expect(await change(mask("description", "output_schema"))).toMatch(/^InvalidArgument: agent\.json: output_schema/);
    expect(await change(mask("description", "demands.tags"))).toMatch(
      /^InvalidArgument: update_mask: demands\.tags cannot be changed/,
    );
    expect((await house.blueprints.getBlueprint({ name: "reviewer" })).blueprint).toEqual(blueprint);
    const missing = { name: "reviewr" };
    expect(await refusal(house.blueprints.updateBlueprint({ blueprint: missing }))).toBe(
      "NotFound: no agent blueprint reviewr; did you mean reviewer?",
    );
  });

  it("that is broken is repaired by a change of all fields, and by no other", async () => {
    const house = await startHouse();
    house.write("reviewer", { "agent.json": "{", "agent.mcp.json": "{" });
    const partial = house.blueprints.updateBlueprint({ blueprint: REVIEWER, updateMask: mask("tags") });
    expect(await refusal(partial)).toMatch(/^FailedPrecondition: .*broken: agent\.json/);
    await house.blueprints.updateBlueprint({ blueprint: { ...REVIEWER, enabled: true } });
    expect(await names(house)).toEqual(["reviewer"]);
  });

  it("behind a link that leads out is never written", async () => {
    const house = await startHouse();
    const outside = tempDir();
    mkdirSync(house.dir, { recursive: true });
    symlinkSync(outside, join(house.dir, "reviewer"));
    expect(await refusal(house.blueprints.updateBlueprint({ blueprint: REVIEWER }))).toMatch(
      /^FailedPrecondition: .*leads out/,
    );
    expect(readdirSync(outside)).toEqual([]);
    await house.blueprints.deleteBlueprint({ name: "reviewer" });
    expect([existsSync(outside), readdirSync(house.dir)]).toEqual([true, []]);
  });

  it("is seen whole by readers while it is changed again and again", async () => {
    const house = await startHouse();
    const version = (n: number) => ({ ...REVIEWER, description: `v${n}`, systemPrompt: `v${n}`, enabled: true });
    await house.blueprints.createBlueprint({ blueprint: version(0) });
    const progress = { writing: true };
    const writes = (async () => {
      for (let n = 1; n <= 30; n += 1) await house.blueprints.updateBlueprint({ blueprint: version(n) });
      progress.writing = false;
    })();
    let reads = 0;
    while (progress.writing) {
      const { blueprints, broken } = await house.blueprints.listBlueprints({});
      expect(broken).toEqual([]);
      expect(blueprints.map(({ description }) => description)).toEqual(
        blueprints.map(({ systemPrompt }) => systemPrompt),
      );
      reads += 1;
    }
    await writes;
    expect(reads).toBeGreaterThan(3);
  });

  it("is removed with all its files, and is then unknown", async () => {
    const house = await startHouse();
    await house.blueprints.createBlueprint({ blueprint: REVIEWER });
    await house.blueprints.deleteBlueprint({ name: "reviewer" });
    expect(readdirSync(house.dir)).toEqual([]);
    for (const name of ["reviewer", "../agents", "."]) {
      expect(await refusal(house.blueprints.deleteBlueprint({ name }))).toMatch(/^NotFound: no agent blueprint/);
    }
  });
});

describe("a run token", () => {
  it("reads blueprints and changes none", async () => {
    const house = await startHouse();
    await house.blueprints.createBlueprint({ blueprint: REVIEWER });
    const runner = await RawRunner.online(house.c);
    await house.c.create();
    const { runToken } = await runner.take();
    const asRun = { headers: { authorization: `Bearer ${runToken}` } };
    const { blueprints } = house;
    expect((await blueprints.listBlueprints({}, asRun)).blueprints).toHaveLength(1);
    expect((await blueprints.getBlueprint({ name: "reviewer" }, asRun)).blueprint?.name).toBe("reviewer");
    const blueprint = { name: "other" };
    for (const call of [
      blueprints.createBlueprint({ blueprint }, asRun),
      blueprints.updateBlueprint({ blueprint: REVIEWER }, asRun),
      blueprints.deleteBlueprint({ name: "reviewer" }, asRun),
    ]) {
      expect(await refusal(call)).toMatch(/^PermissionDenied: .*not for changing agent blueprints/);
    }
    const foreign = { headers: { authorization: "Bearer rt_x" } };
    expect(await refusal(blueprints.listBlueprints({}, foreign))).toMatch(/^Unauthenticated/);
    expect(await names(house)).toEqual(["reviewer"]);
  });
});
