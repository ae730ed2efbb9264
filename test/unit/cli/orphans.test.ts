import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findOrphans } from "../../../cli/doctor/orphans.ts";

describe("findOrphans", () => {
  let proc: string;
  const process_ = async (pid: string, command: string[], environ: string[]) => {
    await mkdir(join(proc, pid));
    await writeFile(join(proc, pid, "cmdline"), `${command.join("\0")}\0`);
    await writeFile(join(proc, pid, "environ"), environ.join("\0"));
    await writeFile(join(proc, pid, "stat"), "");
  };
  beforeEach(async () => {
    proc = await mkdtemp(join(tmpdir(), "ao-proc-"));
  });
  afterEach(() => rm(proc, { recursive: true, force: true }));

  it("finds marked processes without a leash and without a live runner", async () => {
    await process_("self", [], []);
    await process_("10", ["sh", "leash.sh", "AGENT_RUNNER_BOOT=boot_leashed"], ["PATH=/bin"]);
    await process_("11", ["exec", "a"], ["X=1", "AGENT_RUNNER_BOOT=boot_leashed"]);
    await process_("12", ["exec", "b"], ["AGENT_RUNNER_BOOT=boot_known"]);
    await process_("13", ["exec", "c d"], ["AGENT_RUNNER_BOOT=boot_gone", "Y=2"]);
    await process_("14", ["unmarked"], ["Y=2"]);
    // A process that ended between the listing and the look.
    await mkdir(join(proc, "15"));
    expect(findOrphans(new Set(["boot_known"]), proc)).toEqual([{ pid: 13, bootId: "boot_gone", command: "exec c d" }]);
  });

  it("knows nothing where there is no /proc", () => {
    expect(findOrphans(new Set(), join(proc, "none"))).toBeUndefined();
  });
});
