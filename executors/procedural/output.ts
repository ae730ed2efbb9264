import type { JsonObject } from "@bufbuild/protobuf";

/** Largest stdout that is kept. A result has at most 256 KiB; what is read as JSON may be as long. */
export const STDOUT_MAX_BYTES = 256 * 1024;

/** Start of stderr that a result has; all of it is shown with the run. */
export const STDERR_MAX_BYTES = 16 * 1024;

/** Largest result as JSON, with room for the rest of the event. */
const RESULT_MAX_BYTES = 250 * 1024;

/** The first bytes of a stream. */
export class Kept {
  readonly #maxBytes: number;
  readonly #chunks: Buffer[] = [];
  #kept = 0;
  /** Bytes that came, kept or not. */
  bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  push(chunk: Buffer): void {
    const part = chunk.subarray(0, this.#maxBytes - this.#kept);
    this.bytes += chunk.length;
    this.#kept += part.length;
    if (part.length > 0) this.#chunks.push(part);
  }

  get isCut(): boolean {
    return this.bytes > this.#kept;
  }

  /** What was kept, without half a character at a cut. */
  get text(): string {
    return new TextDecoder("utf-8").decode(Buffer.concat(this.#chunks), { stream: this.isCut });
  }
}

/**
 * The data of the result: what the command printed, when that is one JSON object; otherwise how it ended and what it printed,
 * with the number of all bytes for a text that is cut.
 */
export function resultOf(code: number, stdout: Kept, stderr: Kept): JsonObject {
  const object = stdout.isCut ? undefined : jsonObject(stdout.text);
  if (object !== undefined) return object;
  // Characters that JSON writes as six bytes could make a result of a small text that is too large.
  for (let length = stdout.text.length; ; length = Math.floor(length / 2)) {
    const text = stdout.text.slice(0, length).toWellFormed();
    const isCut = stdout.isCut || length < stdout.text.length;
    const data = {
      return_code: code,
      stdout: text,
      stderr: stderr.text,
      ...(isCut && { stdout_bytes: stdout.bytes }),
      ...(stderr.isCut && { stderr_bytes: stderr.bytes }),
    };
    if (length === 0 || Buffer.byteLength(JSON.stringify(data)) <= RESULT_MAX_BYTES) return data;
  }
}

function jsonObject(text: string): JsonObject | undefined {
  if (!text.trimStart().startsWith("{")) return undefined;
  try {
    return JSON.parse(text) as JsonObject;
  } catch {
    // Text that begins like an object.
    return undefined;
  }
}
