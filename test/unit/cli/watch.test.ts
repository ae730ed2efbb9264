import { Code, ConnectError } from "@connectrpc/connect";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findOrphans } from "../../../cli/doctor/orphans.ts";
import { persist, resumed } from "../../../cli/follow/watch.ts";

const QUICK = { firstMs: 50, againMs: 50, pauseMaxMs: 2 };

interface Message {
  cursor: string;
  update: { case: string | undefined };
}
const event = (cursor: string): Message => ({ cursor, update: { case: "event" } });
const END: Message = { cursor: "", update: { case: "run" } };

type Step = Message | ConnectError;

/** Watches a server that plays one script a stream; the last one again and again. */
async function play(scripts: Step[][], signal = new AbortController().signal) {
  const cursors: string[] = [];
  const talk: string[] = [];
  const seen: string[] = [];
  const watch = resumed<Message>({
    open: async function* open(cursor) {
      cursors.push(cursor);
      for (const step of scripts[Math.min(cursors.length, scripts.length) - 1] ?? []) {
        if (step instanceof ConnectError) throw step;
        yield step;
      }
    },
    isLast: ({ message }) => message === END,
    signal,
    onAway: () => talk.push("away"),
    onBack: () => talk.push("back"),
    patience: QUICK,
  });
  const failure = await (async () => {
    for await (const { message, first } of watch) seen.push(`${message.cursor || "end"}${first ? " first" : ""}`);
    return undefined;
  })().catch((error: unknown) => error);
  return { cursors, talk, seen, failure };
}

const gone = () => new ConnectError("gone", Code.Unavailable);

describe("resumed", () => {
  it("goes on behind the last cursor when a stream breaks or ends too early, and says so once", async () => {
    const scripts = [[event("a"), event("b"), gone()], [gone()], [event("c")], [event("d"), END]];
    expect(await play(scripts)).toEqual({
      cursors: ["", "b", "b", "c"],
      talk: ["away", "back", "away", "back"],
      seen: ["a first", "b", "c first", "d first", "end"],
      failure: undefined,
    });
  });

  it("leaves out keep-alives and takes no empty cursor", async () => {
    const keepalive = { cursor: "k", update: { case: "keepalive" } };
    const { seen, cursors } = await play([
      [event("a"), keepalive, gone()],
      [event("b"), END],
    ]);
    expect({ seen, cursors }).toEqual({ seen: ["a first", "b first", "end"], cursors: ["", "k"] });
  });

  it("gives up at once on an answer that repeating does not change", async () => {
    for (const code of [Code.NotFound, Code.OutOfRange, Code.InvalidArgument, Code.Internal]) {
      const { cursors, failure } = await play([[event("a"), new ConnectError("no", code)]]);
      expect({ streams: cursors.length, failure }).toEqual({ streams: 1, failure: expect.objectContaining({ code }) });
    }
  });

  it("gives up with the last error when patience ends, also when it never connected", async () => {
    expect((await play([[event("a"), gone()], [gone()]])).failure).toMatchObject({ code: Code.Unavailable });
    const never = await play([[gone()]]);
    expect(never.failure).toMatchObject({ code: Code.Unavailable });
    expect(never.talk).toEqual([]);
    expect((await play([[]])).failure).toMatchObject({ rawMessage: "the stream ends too early" });
  });

  it("ends without an error when its user leaves, in a stream and in a pause", async () => {
    const left = new AbortController();
    left.abort();
    expect((await play([[event("a"), gone()]], left.signal)).failure).toBeUndefined();
    const soon = AbortSignal.timeout(10);
    expect((await play([[event("a"), gone()], [gone()]], soon)).failure).toBeUndefined();
  });
});

describe("persist", () => {
  it("repeats a call while the coordinator is away, and no longer than its patience", async () => {
    let calls = 0;
    const call = () => Promise.reject(++calls < 3 ? gone() : new ConnectError("no", Code.NotFound));
    await expect(persist(call, QUICK)).rejects.toMatchObject({ code: Code.NotFound });
    expect(calls).toBe(3);
    await expect(persist(() => Promise.reject(gone()), QUICK)).rejects.toMatchObject({ code: Code.Unavailable });
  });

  it("does not repeat what is no error of a call", async () => {
    let calls = 0;
    const call = () => Promise.reject(new TypeError(String(++calls)));
    await expect(persist(call, QUICK)).rejects.toThrow("1");
  });
});

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
