import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Home, call, curl } from "./programs.ts";

/** One coordinator for all: none of this may harm it. */
const home = new Home();
let url = "";
beforeAll(async () => ({ url } = await home.coordinator()));
afterAll(() => home.close());

const runs = async (): Promise<unknown[]> => (await call(url, "RunService/ListRuns", {})).runs ?? [];

const MIB = 2 ** 20;

describe("a request that is wrong is answered with its reason, and makes no run", () => {
  it.each([
    ["a text that is a number", { prompt: 5 }, "CreateRunRequest.prompt from JSON: expected string, got 5"],
    ["no prompt", {}, "prompt: a run needs a text for the agent"],
    ["a field that is misspelt", { prompt: "x", demand: {} }, 'key "demand" is unknown'],
    ["a word that no enum has", { prompt: "x", on_lost: { policy: "NOPE" } }, "Policy from JSON"],
    ["a duration in words", { prompt: "x", timeout: "5 minutes" }, 'Duration from JSON: "5 minutes"'],
    ["an object that is a list", { prompt: "x", metadata: ["a"] }, "Struct from JSON"],
    ["a flag that is a text", { prompt: "x", any_runner: "yes" }, "any_runner from JSON: expected boolean"],
    ["a number that is too large", { prompt: "x", on_lost: { max_attempts: 1e12 } }, "max_attempts from JSON"],
    ["a list", [], "CreateRunRequest from JSON"],
    ["JSON that is cut", '{"prompt": "x"', "CreateRunRequest from JSON: Expected ',' or '}'"],
    ["a prompt that fits no invocation", { prompt: "x".repeat(3.5 * MIB) }, "at most 3145728 fit in an invocation"],
  ])("for %s: 400", async (_what, request, words) => {
    const expected = { code: "invalid_argument", message: expect.stringContaining(words) };
    expect(await curl(url, "RunService/CreateRun", request)).toEqual({
      status: 400,
      answer: expect.objectContaining(expected),
    });
    expect(await runs()).toEqual([]);
  });

  it("for a message over 4 MiB: 429, and the next one is taken", async () => {
    const { status, answer } = await curl(url, "RunService/CreateRun", { prompt: "x".repeat(5 * MIB) });
    expect({ status, ...answer }).toMatchObject({
      status: 429,
      code: "resource_exhausted",
      message: expect.stringMatching(/message size \d+ is larger than .*4194304/),
    });
    expect(await runs()).toEqual([]);
  });

  it("for no content type, which curl -d leaves to a form: 415, with the flag to give", async () => {
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    const answer = await fetch(`${url}/agentrunner.v1.RunService/CreateRun`, { method: "POST", headers, body: "{}" });
    expect([answer.status, await answer.text()]).toEqual([
      415,
      expect.stringContaining("-H 'content-type: application/json'"),
    ]);
  });

  it("for a run that does not exist: 404; for a page that does not: 404", async () => {
    const { status, answer } = await curl(url, "RunService/GetRun", { run_id: "run_nope" });
    expect({ status, ...answer }).toMatchObject({
      status: 404,
      code: "not_found",
      message: "no run run_nope",
      details: [{ debug: { domain: "agentrunner", reason: "RUN_NOT_FOUND" } }],
    });
    const page = await fetch(`${url}/runs`);
    expect([page.status, await page.text()]).toEqual([404, "nothing is served at /runs\n"]);
  });
});

describe("ao refuses a prompt that no run can have, before anything is sent: exit code 2", () => {
  const words = "is larger than 3145728 bytes\nhint: name a file in the prompt instead\n";

  it("from a file, and from stdin", async () => {
    const path = home.path("long.txt");
    writeFileSync(path, "x".repeat(5 * MIB));
    const fromFile = await home.run("ao", ["-c", url, "start", "--prompt-file", path]);
    expect(fromFile).toEqual({ code: 2, stdout: "", stderr: `error: the prompt from ${path} ${words}` });
    const fromStdin = await home.run("ao", ["-c", url, "start", "--prompt", "-"], { stdin: "x".repeat(5 * MIB) });
    expect(fromStdin).toEqual({ code: 2, stdout: "", stderr: `error: the prompt from stdin ${words}` });
    expect(await runs()).toEqual([]);
  });
});
