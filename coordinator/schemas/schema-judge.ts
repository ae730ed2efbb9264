import { createHash } from "node:crypto";
import { Worker } from "node:worker_threads";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { inPackage, MODULE_EXTENSION } from "../../lib/package-root.ts";
import { Refusal } from "../store/refusal.ts";
import type { Answer, Question } from "./worker.ts";

/** A question may take this long, once the thread has it. A common one takes well under a millisecond. */
const DEADLINE_MS = 2_000;
/** Questions that wait, in bytes of their JSON; more are refused. */
const MAX_WAITING_BYTES = 64 * 1024 * 1024;
/** Memory of the thread; a question that needs more ends it, and is refused. */
const WORKER_MAX_MIB = 512;
/** A schema that took too long is refused for this long without being tried again. */
const BARRED_MS = 60_000;
/** Schemas that are remembered as too slow. */
const MAX_BARRED = 1_000;
/** Schemas of which it is remembered whether they can be used. */
const MAX_CHECKED = 10_000;

/** Why a schema gave no answer. The message is for the caller; the value may be fine. */
export class SchemaUnanswered extends Error {
  override readonly name = "SchemaUnanswered";
  /** TOO_SLOW and FAILED are of this schema and value; the others are the coordinator's, and a repetition may succeed. */
  readonly reason: "TOO_SLOW" | "FAILED" | "TOO_MANY" | "STOPPED";
  constructor(reason: SchemaUnanswered["reason"], message: string) {
    super(message);
    this.reason = reason;
  }
}

/** The refusal for what is the coordinator's trouble and not the schema's; undefined for the schema's. */
export function unavailable({ reason, message }: SchemaUnanswered): Refusal | undefined {
  return reason === "TOO_MANY" || reason === "STOPPED" ? new Refusal("UNAVAILABLE", message) : undefined;
}

interface Waiting {
  readonly question: Question;
  readonly bytes: number;
  readonly resolve: (answer: Exclude<Answer, "READY">) => void;
  readonly reject: (error: Error) => void;
}

export interface SchemaJudgeOptions {
  /** Default 2 s. */
  readonly deadlineMs?: number;
  /** Default 64 MiB. */
  readonly maxWaitingBytes?: number;
  /** Memory of the thread, default 512 MiB. */
  readonly maxMib?: number;
}

/**
 * Holds JSON values against JSON Schemas in a thread of its own, one after the other, each under a deadline: whatever a schema
 * and a value make of each other, the event loop that renews leases does not wait for it.
 */
export class SchemaJudge {
  readonly #deadlineMs: number;
  readonly #maxWaitingBytes: number;
  readonly #maxMib: number;
  readonly #waiting: Waiting[] = [];
  readonly #barredUntil = new Map<string, number>();
  readonly #checked = new Map<string, string | undefined>();
  #waitingBytes = 0;
  #worker: Worker | undefined;
  #ready = false;
  #current: { readonly item: Waiting; readonly timer: NodeJS.Timeout } | undefined;
  #closed = false;

  constructor(options: SchemaJudgeOptions = {}) {
    const { deadlineMs = DEADLINE_MS, maxWaitingBytes = MAX_WAITING_BYTES, maxMib = WORKER_MAX_MIB } = options;
    this.#maxMib = maxMib;
    this.#deadlineMs = deadlineMs;
    this.#maxWaitingBytes = maxWaitingBytes;
  }

  /**
   * What of `value` does not fit `schema`, as `violations` of core/json-schema says it; `{problem}` for a schema that cannot be used.
   * @throws SchemaUnanswered when the schema takes too long, when too much waits, and when the judge was closed.
   */
  judge(schema: JsonObject, value: JsonValue | undefined, what: string): Promise<Exclude<Answer, "READY">> {
    const question = {
      schema: JSON.stringify(schema),
      value: value === undefined ? undefined : JSON.stringify(value),
      what,
    };
    const bytes = Buffer.byteLength(question.schema) + Buffer.byteLength(question.value ?? "");
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new SchemaUnanswered("STOPPED", "the coordinator stops"));
      if (this.#isBarred(question.schema)) return reject(this.#tooSlow(what));
      if (this.#waitingBytes + bytes > this.#maxWaitingBytes) {
        return reject(
          new SchemaUnanswered("TOO_MANY", `${this.#waiting.length} values wait for their schemas; try again later`),
        );
      }
      this.#waiting.push({ question, bytes, resolve, reject });
      this.#waitingBytes += bytes;
      return this.#next();
    });
  }

  /**
   * Why the schema cannot be used; undefined when it can. The answer is kept by the content of the schema.
   * @throws SchemaUnanswered as `judge` does.
   */
  async problem(schema: JsonObject, what: string): Promise<string | undefined> {
    const key = keyOf(JSON.stringify(schema));
    if (this.#checked.has(key)) return this.#checked.get(key);
    const answer = await this.judge(schema, undefined, what);
    const [oldest] = this.#checked.keys();
    if (this.#checked.size >= MAX_CHECKED && oldest !== undefined) this.#checked.delete(oldest);
    const problem = "problem" in answer ? answer.problem : undefined;
    this.#checked.set(key, problem);
    return problem;
  }

  /** Ends the thread; what waits is refused. */
  async close(): Promise<void> {
    this.#closed = true;
    const stopped = new SchemaUnanswered("STOPPED", "the coordinator stops");
    this.#take()?.reject(stopped);
    for (const { reject } of this.#waiting.splice(0)) reject(stopped);
    await this.#worker?.terminate();
  }

  #next(): void {
    if (this.#current !== undefined) return;
    const [item] = this.#waiting;
    if (item === undefined) return;
    if (this.#isBarred(item.question.schema)) {
      this.#shift();
      item.reject(this.#tooSlow(item.question.what));
      return this.#next();
    }
    this.#worker ??= this.#start();
    if (!this.#ready) return;
    this.#shift();
    this.#current = { item, timer: setTimeout(() => this.#expire(), this.#deadlineMs) };
    this.#worker.postMessage(item.question);
  }

  #shift(): void {
    this.#waitingBytes -= this.#waiting.shift()?.bytes ?? 0;
  }

  #start(): Worker {
    const worker = new Worker(inPackage(`coordinator/schemas/worker${MODULE_EXTENSION}`), {
      resourceLimits: { maxOldGenerationSizeMb: this.#maxMib },
    });
    worker.unref();
    worker.on("message", (answer: Answer) => {
      if (worker !== this.#worker) return;
      if (answer === "READY") this.#ready = true;
      else this.#take()?.resolve(answer);
      this.#next();
    });
    worker.on("error", (error: Error) => this.#lost(worker, error));
    return worker;
  }

  /** The question that the thread has, which is not asked any more. */
  #take(): Waiting | undefined {
    clearTimeout(this.#current?.timer);
    const item = this.#current?.item;
    this.#current = undefined;
    return item;
  }

  /** The thread is ended, as nothing else interrupts a regular expression, and the next question gets a new one. */
  #expire(): void {
    const item = this.#take();
    if (item === undefined) return;
    this.#bar(item.question.schema);
    this.#drop();
    item.reject(this.#tooSlow(item.question.what));
    this.#next();
  }

  /** The thread died, as of a value that fills its memory. Whoever asked is told so; the others get a new thread. */
  #lost(worker: Worker, error: Error): void {
    if (worker !== this.#worker) return;
    const asked = this.#take();
    this.#drop();
    if (asked !== undefined) {
      const text = `${asked.question.what}: the schema could not be applied: ${error.message}`;
      asked.reject(new SchemaUnanswered("FAILED", text));
    } else {
      // It did not even start.
      const [item] = this.#waiting;
      this.#shift();
      item?.reject(error);
    }
    this.#next();
  }

  #drop(): void {
    void this.#worker?.terminate();
    this.#worker = undefined;
    this.#ready = false;
  }

  #tooSlow(what: string): SchemaUnanswered {
    const text = `${what}: the schema took longer than ${this.#deadlineMs} ms; a pattern that backtracks is a common reason`;
    return new SchemaUnanswered("TOO_SLOW", text);
  }

  #bar(schema: string): void {
    const [oldest] = this.#barredUntil.keys();
    if (this.#barredUntil.size >= MAX_BARRED && oldest !== undefined) this.#barredUntil.delete(oldest);
    this.#barredUntil.set(keyOf(schema), performance.now() + BARRED_MS);
  }

  #isBarred(schema: string): boolean {
    if (this.#barredUntil.size === 0) return false;
    const key = keyOf(schema);
    const until = this.#barredUntil.get(key);
    if (until === undefined) return false;
    if (performance.now() < until) return true;
    this.#barredUntil.delete(key);
    return false;
  }
}

function keyOf(schema: string): string {
  return createHash("sha256").update(schema).digest("base64");
}
