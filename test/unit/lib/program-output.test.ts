import { readFileSync, rmSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { programOutput } from "../../../lib/program-output.ts";
import { until } from "../../support/until.ts";

const ask = (script: string, { timeoutMs = 60_000, maxBytes = 1_000 } = {}) =>
  programOutput({ program: "/bin/sh", args: ["-c", script], env: { PATH: "/usr/bin:/bin" }, timeoutMs, maxBytes });

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe("what a program says", () => {
  it("is its output and how it ended", async () => {
    expect(await ask("echo a; echo b >&2; exit 3")).toMatchObject({ type: "ended", code: 3, signal: null });
    const answer = await ask("echo a; echo b >&2");
    expect(answer.type === "ended" && answer.output.trim().split("\n").sort()).toEqual(["a", "b"]);
    expect(await ask("kill -9 $$")).toEqual({ type: "ended", code: null, signal: "SIGKILL", output: "" });
  });

  it("is cut, and the rest read, so that the program ends", async () => {
    const answer = await ask("head -c 1000000 /dev/zero | tr '\\0' x", { maxBytes: 10 });
    expect(answer).toEqual({ type: "ended", code: 0, signal: null, output: "x".repeat(10) });
  });

  it("is not waited for beyond the deadline, and nothing of its group goes on", async () => {
    const file = `/tmp/program-output-${process.pid}`;
    expect(await ask(`sleep 600 & echo $! >${file}; wait`, { timeoutMs: 1_000 })).toEqual({ type: "too-slow" });
    const pid = Number(readFileSync(file, "utf8"));
    rmSync(file);
    await until(() => !isAlive(pid), "the end of what it started");
  });

  it("is whole when something that it started holds its output open", async () => {
    const answer = await ask("sleep 600 & echo $!");
    expect(answer).toMatchObject({ type: "ended", code: 0 });
    if (answer.type === "ended") process.kill(Number(answer.output));
  });

  it("is nothing when it cannot be started", async () => {
    const answer = await programOutput({ program: "/not/there", args: [], env: {}, timeoutMs: 1_000, maxBytes: 10 });
    expect(answer).toEqual({ type: "not-started", message: "spawn /not/there ENOENT" });
  });
});
