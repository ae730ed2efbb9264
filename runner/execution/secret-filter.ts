/** What stands in place of a secret. */
const MASK = Buffer.from("***");

/** Shorter values are words of the language, and masking them would spoil the text without hiding anything. */
export const SECRET_MIN_BYTES = 8;

/** Longest text that is looked for, and most of them: the work for each chunk of output follows both. */
const SECRET_MAX_BYTES = 8 * 1024;
const PATTERNS_MAX = 256;

/** Bytes that are looked for. */
interface Pattern {
  readonly bytes: Buffer;
  /** For each length of a part that fits: the longest shorter part that fits too (Knuth, Morris and Pratt). */
  readonly fallback: Uint16Array;
}

/**
 * The forms in which values are printed: as they are, and as JSON writes them, with and without characters beyond ASCII
 * and with a slash escaped. A value of several lines, as a key is, is also looked for line by line.
 */
export class Secrets {
  readonly patterns: readonly Pattern[];

  constructor(values: Iterable<string>) {
    const forms = new Set(
      [...values].flatMap((value) =>
        [value, ...value.split(/\r?\n/).filter((line) => line.trim() !== "")].flatMap(formsOf),
      ),
    );
    const bytes = [...forms].map((form) => Buffer.from(form)).filter(({ length }) => length >= SECRET_MIN_BYTES);
    // Where two begin at the same place, the longer one counts.
    const sorted = bytes.toSorted((a, b) => b.length - a.length);
    this.patterns = sorted.map((one) => ({ bytes: one, fallback: fallbackOf(one) }));
  }

  /** Why they are too much to look for in every output; undefined when they are not. */
  get problem(): string | undefined {
    const longest = this.patterns[0]?.bytes.length ?? 0;
    if (longest > SECRET_MAX_BYTES) return `a value has ${longest} bytes; at most ${SECRET_MAX_BYTES} can be masked`;
    const { length } = this.patterns;
    if (length <= PATTERNS_MAX) return undefined;
    return `the values have ${length} lines and forms; at most ${PATTERNS_MAX} can be masked`;
  }
}

export const NO_SECRETS = new Secrets([]);

function formsOf(value: string): string[] {
  const json = JSON.stringify(value).slice(1, -1);
  const ascii = json.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return [value, json, ascii, ...[json, ascii].map((form) => form.replaceAll("/", "\\/"))];
}

function fallbackOf(bytes: Buffer): Uint16Array {
  const fallback = new Uint16Array(bytes.length + 1);
  for (let at = 1, fits = 0; at < bytes.length; at += 1) {
    while (fits > 0 && bytes[at] !== bytes[fits]) fits = fallback[fits]!;
    if (bytes[at] === bytes[fits]) fits += 1;
    fallback[at + 1] = fits;
  }
  return fallback;
}

/**
 * Replaces secrets in one stream of bytes by `***`, wherever it is cut into chunks. The end of a chunk that may be the
 * beginning of a secret is held back until it proves to be one or not, or the stream ends: less than one secret.
 */
export class SecretFilter {
  readonly #patterns: readonly Pattern[];
  readonly #longest: number;
  #held = Buffer.alloc(0);

  constructor({ patterns }: Secrets) {
    this.#patterns = patterns;
    this.#longest = patterns[0]?.bytes.length ?? 0;
  }

  /** What can be told of the stream so far. Without secrets this is the chunk itself. */
  push(chunk: Buffer): Buffer {
    if (this.#longest === 0) return chunk;
    return this.#mask(this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]), false);
  }

  /** What was held back. */
  end(): Buffer {
    return this.#mask(this.#held, true);
  }

  #mask(bytes: Buffer, last: boolean): Buffer {
    const parts: Buffer[] = [];
    const next = this.#patterns.map(({ bytes: wanted }) => bytes.indexOf(wanted));
    let from = 0;
    let hold = last ? bytes.length : this.#holdFrom(bytes, 0);
    for (;;) {
      const [at, length] = this.#first(bytes, next, from);
      // What is held may become a longer secret that begins there or before.
      if (at < 0 || at >= hold) break;
      parts.push(bytes.subarray(from, at), MASK);
      from = at + length;
      if (hold < from) hold = this.#holdFrom(bytes, from);
    }
    this.#held = Buffer.from(bytes.subarray(hold));
    if (parts.length === 0) return bytes.subarray(0, hold);
    return Buffer.concat([...parts, bytes.subarray(from, hold)]);
  }

  /** Where the first secret at or after `from` is, and how long; the longest of those. `next` remembers what was found. */
  #first(bytes: Buffer, next: number[], from: number): [at: number, length: number] {
    let at = -1;
    let length = 0;
    for (const [index, { bytes: wanted }] of this.#patterns.entries()) {
      if (next[index]! >= 0 && next[index]! < from) next[index] = bytes.indexOf(wanted, from);
      const found = next[index]!;
      if (found < 0 || (at >= 0 && found >= at)) continue;
      at = found;
      length = wanted.length;
    }
    return [at, length];
  }

  /** The first place at or after `from` where a secret may have begun that is not complete. */
  #holdFrom(bytes: Buffer, from: number): number {
    let hold = bytes.length;
    for (const { bytes: wanted, fallback } of this.#patterns) {
      let fits = 0;
      for (let at = Math.max(from, bytes.length - wanted.length + 1); at < bytes.length; at += 1) {
        while (fits > 0 && bytes[at] !== wanted[fits]) fits = fallback[fits]!;
        if (bytes[at] === wanted[fits]) fits += 1;
      }
      hold = Math.min(hold, bytes.length - fits);
    }
    return hold;
  }
}
