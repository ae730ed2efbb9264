import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { inRepository } from "../support/paths.ts";

/** Makes the command process 1 of processes of its own, as a container does. */
const NAMESPACE = ["--pid", "--fork", "--mount-proc", "--kill-child"];
const allowed = spawnSync("unshare", [...NAMESPACE, "true"]).status === 0;
if (!allowed) process.stderr.write("skipped: `unshare --pid` is not allowed here, nothing can be process 1\n");

let dir: string;
beforeEach(() => (dir = realpathSync(mkdtempSync(join(tmpdir(), "first-process-")))));
afterEach(() => rmSync(dir, { recursive: true }));

/** Runs bin/ with a Node that is this shell script: what the program does is the test's. */
async function launched(program: string, signal?: NodeJS.Signals) {
  const bin = join(dir, "bin");
  spawnSync("cp", ["-r", inRepository("bin"), bin]);
  const node = join(dir, "node");
  writeFileSync(node, `#!/bin/sh\n[ "$1" = --version ] && echo v26.0.0 && exit\n${program}`, { mode: 0o755 });
  const env = { PATH: `${dir}:/usr/bin:/bin`, HOME: dir };
  const child = spawn("unshare", [...NAMESPACE, join(bin, "agent-runner"), "an argument"], { env, cwd: dir });
  let stdout = "";
  child.stdin.end("from stdin");
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    // `unshare` passes nothing on, and process 1 is its child.
    if (signal !== undefined && text.includes("ready"))
      spawnSync("pkill", [`-${signal.slice(3)}`, "-P", String(child.pid)]);
  });
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, stdout };
}

describe.skipIf(!allowed)("the launcher as process 1", () => {
  it("collects what executors leave behind", async () => {
    // Its parent ends at once, so that it becomes a child of process 1, and ends a little later.
    const { code, stdout } = await launched(`
(sh -c 'sleep 0.2; : >gone' >/dev/null 2>&1 &)
until [ -e gone ]; do sleep 0.02; done
zombies() { grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l; }
left=200
while [ "$(zombies)" -gt 0 ] && [ $left -gt 0 ]; do sleep 0.05; left=$((left - 1)); done
echo "zombies $(zombies), mine $$"
`);
    expect(stdout).toMatch(/^zombies 0, mine \d+\n$/);
    expect(stdout).not.toContain("mine 1\n");
    expect(code).toBe(0);
  });

  it("gives the program its arguments and stdin, and exits as it does", async () => {
    expect(await launched('echo "$2: $(cat)"; exit 7\n')).toEqual({ code: 7, stdout: "an argument: from stdin\n" });
  });

  it("passes signals on, and waits for what the program makes of them", async () => {
    const program = `trap 'echo drains; sleep 0.3; exit 5' TERM\necho ready\nwhile :; do sleep 0.02; done\n`;
    expect(await launched(program, "SIGTERM")).toEqual({ code: 5, stdout: "ready\ndrains\n" });
  });
});
