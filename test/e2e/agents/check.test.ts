import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Home } from "../programs.ts";
import { AGENTS, installed } from "./installed.ts";

let home: Home;
beforeEach(() => (home = new Home()));
afterEach(() => home.close());

describe.each(AGENTS)("%s", (agent) => {
  it("keeps the contract of executors, but for what its roster entry says that it lacks", async ({ skip }) => {
    const env = installed(agent, skip);
    const { code, stdout, stderr } = await home.run("ao", ["executors", "check", agent], { env });
    process.stderr.write(`${agent}:\n${stdout}`);
    expect(code, `${stdout}${stderr}`).toBe(0);
    expect(stderr, "the count of points").toMatch(/\d+ passed/);
  }, 900_000);
});
