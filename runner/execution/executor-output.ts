import { StringDecoder } from "node:string_decoder";
import { create } from "@bufbuild/protobuf";
import {
  ExecutorEventSchema,
  ExecutorOutput_Stream,
  ExecutorResultSchema,
} from "../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorEvent, ExecutorResult } from "../../gen/agentrunner/v1/executor_pb.ts";
import {
  cutTail,
  cutText,
  EVENT_CHUNK_MAX_BYTES,
  OUTPUT_MAX_BYTES,
  RESULT_PART_MAX_BYTES,
  STDERR_TAIL_MAX_BYTES,
} from "../../lib/protocol/limits.ts";
import { EVENT_MAX_BYTES, readEvent } from "./executor-event.ts";
import { NotUtf8Counter } from "./not-utf8.ts";
import { NO_SECRETS, SecretFilter } from "./secret-filter.ts";
import type { Secrets } from "./secret-filter.ts";

/** Bytes decoded at a time: invalid ones become three bytes each, and must still fit one chunk. */
const DECODED_BYTES = EVENT_CHUNK_MAX_BYTES / 4;

/** Why bytes are missing that were replaced. */
const NOT_UTF8 = "bytes of the output that are not UTF-8; U+FFFD stands in their place";

const NEWLINE = 0x0a;
const BRACE = 0x7b;

export type OutputStream = "stdout" | "stderr";

/** What an executor's output amounts to. */
export interface OutputSummary {
  /** The last `result` event; without one the plain stdout, cut at 256 KiB with a marker; absent when there was none. */
  result: ExecutorResult | undefined;
  /** From the last `session` event; empty when there was none. */
  executorSessionId: string;
  /** The end of stderr, at most 16 KiB, with a marker when it was cut. */
  stderrTail: string;
  /** Everything printed on both streams, kept or not. */
  outputBytes: number;
  /** Lines that name a known type but have the wrong shape. They were taken as output. */
  malformedEvents: number;
  /** What was wrong with the first of them; empty when there was none. */
  malformedReason: string;
}

/** Where the parser is in a line of stdout: `blank` and `object` are held until they prove to be an event or not. */
type Line = "start" | "blank" | "object" | "plain";

export interface OutputParserOptions {
  readonly outputMaxBytes?: number;
  /** What must not be seen. */
  readonly secrets?: Secrets;
}

/**
 * Turns what an executor prints into events, in the order in which it was read. It does no I/O and has no clock.
 *
 * A line of stdout that is a JSON object with a known `type` and the right shape is that event; every other line, and all
 * of stderr, is `output`, joined to chunks of at most 64 KiB. Invalid UTF-8 is replaced, and the end says how many bytes that
 * were; NUL is kept, a last line without a newline counts as a line. A line that begins like an object is held until it ends, up to 1 MiB.
 *
 * `secrets` are replaced before anything else looks at the bytes: they are in no event, no result and no end of stderr.
 *
 * After `outputMaxBytes` nothing more is emitted but a `dropped` marker there and one with the totals at the end; the
 * result and the session id are still read.
 */
export class OutputParser {
  readonly #outputMaxBytes: number;
  readonly #filters: Readonly<Record<OutputStream, SecretFilter>>;
  readonly #decoders = { stdout: new StringDecoder("utf8"), stderr: new StringDecoder("utf8") };
  readonly #plain = { text: "", bytes: 0, decoder: new StringDecoder("utf8") };
  readonly #notUtf8 = { stdout: new NotUtf8Counter(), stderr: new NotUtf8Counter() };
  readonly #stderr = { tail: Buffer.alloc(0), bytes: 0 };
  readonly #held = new HeldLine();
  #line: Line = "start";
  #batch: { stream: OutputStream; text: string; bytes: number } | undefined;
  #ready: ExecutorEvent[] = [];
  #keptBytes = 0;
  #outputBytes = 0;
  #dropped: { events: number; bytes: number } | undefined;
  #result: ExecutorResult | undefined;
  #results = 0;
  #executorSessionId = "";
  #malformed = { events: 0, reason: "" };

  constructor({ outputMaxBytes = OUTPUT_MAX_BYTES, secrets = NO_SECRETS }: OutputParserOptions = {}) {
    this.#outputMaxBytes = outputMaxBytes;
    this.#filters = { stdout: new SecretFilter(secrets), stderr: new SecretFilter(secrets) };
  }

  /** Number of `result` events so far. */
  get results(): number {
    return this.#results;
  }

  /** Memory that the line takes which is not whole yet. */
  get heldBytes(): number {
    return this.#held.capacity;
  }

  /** True when output waits for a flush. */
  get pending(): boolean {
    return this.#batch !== undefined;
  }

  /** Reads a chunk and returns the events that are complete. The chunk is not kept. */
  push(stream: OutputStream, chunk: Buffer): ExecutorEvent[] {
    this.#outputBytes += chunk.length;
    this.#readBytes(stream, this.#filters[stream].push(chunk));
    return this.#take();
  }

  /** Returns the output that waits for more of its kind. A held line stays held. */
  flush(): ExecutorEvent[] {
    this.#closeBatch();
    return this.#take();
  }

  /** Ends both streams and returns the last events. */
  end(): ExecutorEvent[] {
    for (const stream of ["stdout", "stderr"] as const) this.#readBytes(stream, this.#filters[stream].end());
    const line = this.#held.take();
    if (line.length > 0) this.#readLine(line);
    this.#plain.text += this.#plain.decoder.end();
    for (const stream of ["stdout", "stderr"] as const) {
      const rest = this.#decoders[stream].end();
      if (this.#dropped === undefined) this.#append(stream, rest);
    }
    this.#closeBatch();
    if (this.#dropped !== undefined) this.#emitDropped(this.#dropped, `${this.#limitText}; in total`);
    const replaced = this.#notUtf8.stdout.end() + this.#notUtf8.stderr.end();
    if (replaced > 0) this.#emitDropped({ events: 0, bytes: replaced }, NOT_UTF8);
    return this.#take();
  }

  /** What there was; complete after `end`. */
  summary(): OutputSummary {
    return {
      result: this.#result ?? this.#plainResult(),
      executorSessionId: this.#executorSessionId,
      stderrTail: cutTail(this.#stderr.tail.toString("utf8"), STDERR_TAIL_MAX_BYTES, this.#stderr.bytes),
      outputBytes: this.#outputBytes,
      malformedEvents: this.#malformed.events,
      malformedReason: this.#malformed.reason,
    };
  }

  #readBytes(stream: OutputStream, bytes: Buffer): void {
    // What is not kept is not replaced either.
    if (this.#dropped === undefined) this.#notUtf8[stream].push(bytes);
    if (stream === "stdout") return this.#readLines(bytes);
    this.#stderr.bytes += bytes.length;
    this.#stderr.tail = Buffer.concat([this.#stderr.tail, bytes.subarray(-STDERR_TAIL_MAX_BYTES)]);
    this.#stderr.tail = this.#stderr.tail.subarray(-STDERR_TAIL_MAX_BYTES);
    return this.#print("stderr", bytes);
  }

  #readLines(chunk: Buffer): void {
    let printed = 0;
    for (let start = 0; start < chunk.length;) {
      const newline = chunk.indexOf(NEWLINE, start);
      const end = newline < 0 ? chunk.length : newline + 1;
      this.#line = kindOfLine(this.#line, chunk, start, end);
      if (this.#line === "plain") {
        if (start === 0) this.#printPlain(this.#held.take());
      } else {
        this.#printPlain(chunk.subarray(printed, start));
        this.#hold(chunk.subarray(start, end), newline >= 0);
        printed = end;
      }
      if (newline >= 0) this.#line = "start";
      start = end;
    }
    this.#printPlain(chunk.subarray(printed));
  }

  #hold(piece: Buffer, ends: boolean): void {
    if (this.#held.bytes + piece.length > EVENT_MAX_BYTES) {
      this.#printPlain(this.#held.take());
      this.#printPlain(piece);
      this.#line = "plain";
    } else if (!ends) {
      this.#held.add(piece);
    } else if (this.#held.bytes === 0) {
      this.#readLine(piece);
    } else {
      this.#held.add(piece);
      this.#readLine(this.#held.take());
    }
  }

  /** A whole line that may be an event. */
  #readLine(line: Buffer): void {
    const read = readEvent(line);
    switch (read.type) {
      case "event":
        this.#emitEvent(read.event, line.length);
        return;
      case "malformed":
        this.#malformed.events += 1;
        this.#malformed.reason ||= read.reason;
        this.#printPlain(line);
        return;
      case "output":
        this.#printPlain(line);
        return;
      default:
        read satisfies never;
    }
  }

  #emitEvent(event: ExecutorEvent, bytes: number): void {
    if (event.event.case === "session") this.#executorSessionId = event.event.value.executorSessionId;
    if (event.event.case === "result") {
      this.#result = event.event.value;
      this.#results += 1;
    }
    if (bytes > this.#outputMaxBytes - this.#keptBytes) {
      const dropped = this.#cut();
      dropped.events += 1;
      dropped.bytes += bytes;
      return;
    }
    this.#keptBytes += bytes;
    this.#closeBatch();
    this.#ready.push(event);
  }

  #printPlain(bytes: Buffer): void {
    this.#plain.bytes += bytes.length;
    for (let at = 0; at < bytes.length && this.#plain.text.length < RESULT_PART_MAX_BYTES; at += DECODED_BYTES) {
      this.#plain.text += this.#plain.decoder.write(bytes.subarray(at, at + DECODED_BYTES));
    }
    this.#print("stdout", bytes);
  }

  #print(stream: OutputStream, bytes: Buffer): void {
    const kept = bytes.subarray(0, this.#outputMaxBytes - this.#keptBytes);
    this.#keptBytes += kept.length;
    for (let at = 0; at < kept.length; at += DECODED_BYTES) {
      this.#append(stream, this.#decoders[stream].write(kept.subarray(at, at + DECODED_BYTES)));
    }
    if (kept.length < bytes.length) this.#cut().bytes += bytes.length - kept.length;
  }

  #append(stream: OutputStream, text: string): void {
    if (text === "") return;
    const bytes = Buffer.byteLength(text);
    const batch = this.#batch;
    if (batch !== undefined && (batch.stream !== stream || batch.bytes + bytes > EVENT_CHUNK_MAX_BYTES)) {
      this.#closeBatch();
    }
    this.#batch ??= { stream, text: "", bytes: 0 };
    this.#batch.text += text;
    this.#batch.bytes += bytes;
  }

  #closeBatch(): void {
    if (this.#batch === undefined) return;
    const stream = this.#batch.stream === "stdout" ? ExecutorOutput_Stream.STDOUT : ExecutorOutput_Stream.STDERR;
    const value = { stream, text: this.#batch.text };
    this.#ready.push(create(ExecutorEventSchema, { event: { case: "output", value } }));
    this.#batch = undefined;
  }

  /** The limit is reached: nothing more fits, however small, so that there is one gap and not many. */
  #cut(): { events: number; bytes: number } {
    this.#keptBytes = this.#outputMaxBytes;
    if (this.#dropped === undefined) {
      this.#closeBatch();
      this.#emitDropped({ events: 0, bytes: 0 }, `${this.#limitText}; what follows is not kept`);
    }
    return (this.#dropped ??= { events: 0, bytes: 0 });
  }

  get #limitText(): string {
    return `output limit of ${this.#outputMaxBytes} bytes for one run`;
  }

  #emitDropped({ events, bytes }: { events: number; bytes: number }, reason: string): void {
    const value = { events: BigInt(events), bytes: BigInt(bytes), reason };
    this.#ready.push(create(ExecutorEventSchema, { event: { case: "dropped", value } }));
  }

  #plainResult(): ExecutorResult | undefined {
    if (this.#plain.bytes === 0) return undefined;
    return create(ExecutorResultSchema, { text: cutText(this.#plain.text, RESULT_PART_MAX_BYTES, this.#plain.bytes) });
  }

  #take(): ExecutorEvent[] {
    const ready = this.#ready;
    this.#ready = [];
    return ready;
  }
}

/** A line that is not complete. One buffer that grows, because a line that comes byte by byte would otherwise be a million small ones. */
class HeldLine {
  #buffer = Buffer.alloc(0);

  get capacity(): number {
    return this.#buffer.length;
  }
  bytes = 0;

  add(piece: Buffer): void {
    const bytes = this.bytes + piece.length;
    if (bytes > this.#buffer.length) {
      const bigger = Buffer.allocUnsafe(bytes * 2);
      this.#buffer.copy(bigger, 0, 0, this.bytes);
      this.#buffer = bigger;
    }
    piece.copy(this.#buffer, this.bytes);
    this.bytes = bytes;
  }

  take(): Buffer {
    const line = this.#buffer.subarray(0, this.bytes);
    this.#buffer = Buffer.alloc(0);
    this.bytes = 0;
    return line;
  }
}

function kindOfLine(line: Line, chunk: Buffer, start: number, end: number): Line {
  if (line === "object" || line === "plain") return line;
  for (let at = start; at < end; at += 1) {
    const byte = chunk[at];
    if (byte === BRACE) return "object";
    if (byte !== 0x20 && byte !== 0x09 && byte !== 0x0d) return "plain";
  }
  return "blank";
}
