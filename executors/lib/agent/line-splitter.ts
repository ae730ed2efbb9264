/** Longest line of an agent that is read as JSON. A tool result of 8 MiB is nobody's; what is longer is cut and counted. */
export const LINE_MAX_BYTES = 8 * 1024 * 1024;

/** Beginning of a line that is lost, which is kept. */
const HEAD_BYTES = 256;

/** Cuts a stream of bytes into lines, and holds at most one line of LINE_MAX_BYTES. */
export class LineSplitter {
  readonly #maxBytes: number;
  #held: Buffer[] = [];
  #bytes = 0;
  #tooLong = false;
  /** Lines that were longer and are lost. */
  dropped = 0;
  /** How the last of them began, which often says what it was. */
  droppedHead = "";

  constructor(maxBytes = LINE_MAX_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** The lines that the chunk completes, without their ends. */
  push(chunk: Buffer): string[] {
    const lines: string[] = [];
    let from = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, from)) {
      this.#hold(chunk.subarray(from, end));
      const line = this.#take();
      if (line !== undefined) lines.push(line);
      from = end + 1;
    }
    this.#hold(chunk.subarray(from));
    return lines;
  }

  /** What came after the last line end; undefined when that is nothing. */
  end(): string | undefined {
    return this.#bytes === 0 && !this.#tooLong ? undefined : this.#take();
  }

  #hold(part: Buffer): void {
    if (this.#tooLong || part.length === 0) return;
    this.#bytes += part.length;
    if (this.#bytes > this.#maxBytes) {
      this.#tooLong = true;
      const head = Buffer.concat([...this.#held, part].map((one) => one.subarray(0, HEAD_BYTES)));
      this.droppedHead = head.toString("utf8", 0, HEAD_BYTES);
      this.#held = [];
    } else {
      this.#held.push(part);
    }
  }

  #take(): string | undefined {
    const line = this.#tooLong ? undefined : Buffer.concat(this.#held).toString("utf8").replace(/\r$/, "");
    if (this.#tooLong) this.dropped += 1;
    this.#held = [];
    this.#bytes = 0;
    this.#tooLong = false;
    return line;
  }
}
