import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { watch } from "../../../client/watch.ts";
import type { WatchOptions } from "../../../client/watch.ts";

const QUICK = { firstMs: 50, againMs: 50, pauseMaxMs: 2 };

interface Message {
  cursor: string;
  update: { case: string | undefined };
}
const event = (cursor: string): Message => ({ cursor, update: { case: "event" } });
const END: Message = { cursor: "", update: { case: "run" } };

type Step = Message | ConnectError;

/** Watches a server that plays one script a stream; the last one again and again. */
async function play(
  scripts: Step[][],
  signal = new AbortController().signal,
  more: Partial<WatchOptions<Message>> = {},
) {
  const cursors: string[] = [];
  const talk: string[] = [];
  const seen: string[] = [];
  const messages = watch<Message>({
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
    ...more,
  });
  const failure = await (async () => {
    for await (const { message, first } of messages) seen.push(`${message.cursor || "end"}${first ? " first" : ""}`);
    return undefined;
  })().catch((error: unknown) => error);
  return { cursors, talk, seen, failure };
}

const gone = () => new ConnectError("gone", Code.Unavailable);

describe("watch", () => {
  it("goes on after the last cursor when a stream breaks or ends too early, and says so once", async () => {
    const scripts = [[event("a"), event("b"), gone()], [gone()], [event("c")], [event("d"), END]];
    expect(await play(scripts)).toEqual({
      cursors: ["", "b", "b", "c"],
      talk: ["away", "back", "away", "back"],
      seen: ["a first", "b", "c first", "d first", "end"],
      failure: undefined,
    });
  });

  it("waits for a coordinator that has answered another call as for one that has answered this", async () => {
    const patience = { firstMs: 0, againMs: 5_000, pauseMaxMs: 2 };
    const scripts = [[gone()], [gone()], [event("a"), END]];
    const known = await play(scripts, undefined, { connected: true, patience });
    expect(known).toMatchObject({ talk: ["away", "back"], seen: ["a first", "end"], failure: undefined });
    expect((await play(scripts, undefined, { patience })).failure).toMatchObject({ code: Code.Unavailable });
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
    // Patience that a busy machine does not use up before the signal comes.
    const patience = { ...QUICK, againMs: 60_000 };
    expect((await play([[event("a"), gone()], [gone()]], soon, { patience })).failure).toBeUndefined();
  });

  it("survives every code of a broken connection, a deadline that nobody set included", async () => {
    for (const code of [Code.Unavailable, Code.Canceled, Code.Aborted, Code.DeadlineExceeded]) {
      const { cursors, failure } = await play([[event("a"), new ConnectError("cut", code)], [END]]);
      expect({ cursors, failure }).toEqual({ cursors: ["", "a"], failure: undefined });
    }
  });

  it("begins after the cursor that it is given, and shows keep-alives to who asks for them", async () => {
    const keepalive = { cursor: "k", update: { case: "keepalive" } };
    const { seen, cursors } = await play([[keepalive, END]], undefined, { from: "z", keepalives: true });
    expect({ seen, cursors }).toEqual({ seen: ["k first", "end"], cursors: ["z"] });
  });

  it("begins again in another store when it is told to, but for a beginning that is refused", async () => {
    const other = () => new ConnectError("the cursor is of another store", Code.OutOfRange);
    const again = { otherStore: "begin-again" } as const;
    const { seen, cursors } = await play([[event("a"), gone()], [other()], [event("b"), END]], undefined, again);
    expect({ seen, cursors }).toEqual({ seen: ["a first", "b first", "end"], cursors: ["", "a", ""] });
    expect((await play([[other()]], undefined, again)).failure).toMatchObject({ code: Code.OutOfRange });
  });

  it("ends with its stream when no message is the last one", async () => {
    const messages = watch<Message>({
      open: async function* open() {
        yield event("a");
      },
      signal: new AbortController().signal,
    });
    const seen: string[] = [];
    for await (const { message } of messages) seen.push(message.cursor);
    expect(seen).toEqual(["a"]);
  });
});
