import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import jsonc from "jsonc-parser/lib/umd/main.js";
import { expect, it, onTestFinished } from "vitest";
import { inRepository } from "../support/paths.ts";
import { json, put, tempFolder } from "../support/agent-config.ts";

const PROCESSES = 48;

/** Loads everything, says so, and prepares a task when its stdin ends; each appears at a path of its own in its container. */
const PROGRAM = `
  import { readFileSync, writeSync } from "node:fs";
  const folder = ${JSON.stringify(inRepository("executors/lib/agent-config/"))};
  const { prepareAgentConfigDir } = await import(folder + "prepare.ts");
  const { AgentConfigSpec } = await import(folder + "spec.ts");
  const [root, taskId] = process.argv.slice(-2);
  writeSync(1, "ready");
  readFileSync(0);
  const subagents = [{ name: "a", description: "D", prompt: taskId, default: true }];
  const spec = new AgentConfigSpec({ tasksRoot: root + "/tasks", mountsBase: root + "/mounts", taskId, subagents });
  prepareAgentConfigDir(spec, { strict: true, paths: { config: "/" + taskId } });
`;

it("48 concurrent writes of as many processes ⇒ valid JSON, one entry each, comments kept", async () => {
  const root = tempFolder();
  const opencode = put(join(root, "mounts/_opencode-config/opencode.json"), '{\n  // my model\n  "model": "a/b",\n}\n');
  put(join(root, "mounts/_claude-config/settings.json"), '{"permissions": {"allow": ["Read"]}}');
  const children = Array.from({ length: PROCESSES }, (_, index) => {
    const args = ["--input-type=module-typescript", "-e", PROGRAM, "--", root, `t${index}`];
    const child = spawn(process.execPath, args, { stdio: "pipe" });
    onTestFinished(() => void child.kill("SIGKILL"));
    return { child, stderr: text(child.stderr), ready: once(child.stdout, "data"), ended: once(child, "close") };
  });
  await Promise.all(children.map(({ ready }) => ready));
  for (const { child } of children) child.stdin.end();
  for (const { ended, stderr } of children) {
    expect(await stderr).toBe("");
    expect((await ended)[0]).toBe(0);
  }

  const written = readFileSync(opencode, "utf8");
  expect(written).toContain("// my model");
  const errors: unknown[] = [];
  const config = jsonc.parse(written, errors as [], { allowTrailingComma: true }) as Record<string, unknown>;
  expect(errors).toEqual([]);
  expect(config["model"]).toBe("a/b");
  const paths = Array.from(children.keys(), (index) => `/t${index}/instructions.md`).sort();
  expect((config["instructions"] as string[]).sort()).toEqual(paths);
  const settings = json(join(root, "mounts/_claude-config/settings.json"));
  expect(settings["permissions"]).toEqual({ allow: ["Read"] });
  expect((settings["hooks"] as { SessionStart: unknown[] }).SessionStart).toHaveLength(1);
  for (const name of ["blablador", "kisski", "openrouter"]) {
    const { instructions } = json(join(root, `mounts/_${name}-config/opencode/opencode.json`));
    expect((instructions as string[]).sort()).toEqual(paths);
  }
  const left = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((name) => /\.(tmp|bak-.*)$/.test(name));
  expect(left).toEqual([]);
  for (const index of children.keys()) {
    expect(json(join(root, `tasks/t${index}/agent-config/agents.json`))).toMatchObject({ a: { prompt: `t${index}` } });
  }
}, 300_000);
