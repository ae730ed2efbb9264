import { isUtf8 } from "node:buffer";

/** Counts the bytes of a stream that are not UTF-8, wherever it is cut into chunks. */
export class NotUtf8Counter {
  #bytes = 0;
  /** The beginning of a character that the next chunk may complete: less than four bytes. */
  #held = Buffer.alloc(0);

  push(chunk: Buffer): void {
    const bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const whole = bytes.subarray(0, incompleteFrom(bytes));
    this.#held = Buffer.from(bytes.subarray(whole.length));
    // Nearly everything that is printed is UTF-8, and that is found out at once.
    if (!isUtf8(whole)) this.#bytes += notUtf8In(whole);
  }

  /** The stream has ended: how many there were. */
  end(): number {
    this.#bytes += this.#held.length;
    this.#held = Buffer.alloc(0);
    return this.#bytes;
  }
}

/** Where the last character begins, when bytes of it are still to come; else the end. */
function incompleteFrom(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back]!;
    if (isContinuation(byte)) continue;
    const size = byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    return back < size ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

function notUtf8In(bytes: Buffer): number {
  let wrong = 0;
  for (let at = 0; at < bytes.length;) {
    const size = sizeAt(bytes, at);
    if (size === 0) wrong += 1;
    at += Math.max(1, size);
  }
  return wrong;
}

/** Bytes of the character that begins there; 0 when none does (Unicode, table 3-7). */
function sizeAt(bytes: Buffer, at: number): number {
  const first = bytes[at]!;
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  const second = bytes[at + 1] ?? 0;
  // No longer form of a shorter character, no half of a pair, nothing beyond the last character.
  if (first === 0xe0 && second < 0xa0) return 0;
  if (first === 0xed && second > 0x9f) return 0;
  if (first === 0xf0 && second < 0x90) return 0;
  if (first === 0xf4 && second > 0x8f) return 0;
  for (let next = at + 1; next < at + size; next += 1) if (!isContinuation(bytes[next] ?? 0)) return 0;
  return size;
}

function isContinuation(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}
