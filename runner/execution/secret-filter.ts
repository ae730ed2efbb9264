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

/** Bytes from one place up to another. */
interface Span {
  readonly from: number;
  readonly to: number;
}

/**
 * The forms in which values are printed: as they are, and as JSON writes them, with and without characters beyond ASCII
 * and with a slash escaped. A value of several lines, as a key is, is also looked for line by line.
 */
export class Secrets {
  readonly #byForm: ReadonlyMap<string, Pattern>;

  /** Those of `others` too, which are not prepared again. */
  constructor(values: Iterable<string>, others?: Secrets) {
    const byForm = new Map(others === undefined ? [] : others.#byForm);
    for (const value of values) {
      const lines = value.split(/\r?\n/).filter((line) => line.trim() !== "");
      for (const form of [value, ...lines].flatMap(formsOf)) {
        const bytes = Buffer.from(form);
        if (bytes.length < SECRET_MIN_BYTES || byForm.has(form)) continue;
        byForm.set(form, { bytes, fallback: fallbackOf(bytes) });
      }
    }
    this.#byForm = byForm;
  }

  get patterns(): readonly Pattern[] {
    return [...this.#byForm.values()];
  }

  /** Why they are too much to look for in every output; undefined when they are not. */
  get problem(): string | undefined {
    const { patterns } = this;
    const longest = longestOf(patterns);
    if (longest > SECRET_MAX_BYTES) return `a value has ${longest} bytes; at most ${SECRET_MAX_BYTES} can be masked`;
    if (patterns.length <= PATTERNS_MAX) return undefined;
    return `the values have ${patterns.length} lines and forms; at most ${PATTERNS_MAX} can be masked`;
  }
}

export const NO_SECRETS = new Secrets([]);

function longestOf(patterns: readonly Pattern[]): number {
  return Math.max(0, ...patterns.map(({ bytes }) => bytes.length));
}

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
 * Replaces secrets in one stream of bytes by `***`, wherever it is cut into chunks. Secrets that overlap, as one that ends as
 * another begins, are replaced together: no part of either is seen. The end of a chunk that may be the beginning of a secret is
 * held back until it proves to be one or not, or the stream ends: less than one secret.
 */
export class SecretFilter {
  readonly #patterns: readonly Pattern[];
  readonly #longest: number;
  #held = Buffer.alloc(0);
  /** How many of the held bytes belong to a secret that was replaced already, as another may begin in it. */
  #covered = 0;

  constructor({ patterns }: Secrets) {
    this.#patterns = patterns;
    this.#longest = longestOf(patterns);
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
    const spans = this.#patterns.flatMap((pattern) => spansOf(pattern, bytes)).toSorted((a, b) => a.from - b.from);
    const hold = last ? bytes.length : this.#holdFrom(bytes);
    const parts: Buffer[] = [];
    let at = this.#covered;
    for (const { from, to } of spans) {
      // What is held may become a secret that begins there or before.
      if (from >= hold) break;
      if (from >= at) parts.push(bytes.subarray(at, from), MASK);
      at = Math.max(at, to);
    }
    this.#held = Buffer.from(bytes.subarray(hold));
    this.#covered = Math.max(0, at - hold);
    const rest = bytes.subarray(Math.min(at, hold), hold);
    return parts.length === 0 ? rest : Buffer.concat([...parts, rest]);
  }

  /** The first place where a secret may have begun that is not complete. */
  #holdFrom(bytes: Buffer): number {
    let hold = bytes.length;
    for (const { bytes: wanted, fallback } of this.#patterns) {
      let fits = 0;
      for (let at = Math.max(0, bytes.length - wanted.length + 1); at < bytes.length; at += 1) {
        while (fits > 0 && bytes[at] !== wanted[fits]) fits = fallback[fits]!;
        if (bytes[at] === wanted[fits]) fits += 1;
      }
      hold = Math.min(hold, bytes.length - fits);
    }
    return hold;
  }
}

/** Where a secret is; places that overlap are one. */
function spansOf({ bytes: wanted, fallback }: Pattern, bytes: Buffer): Span[] {
  const spans: Span[] = [];
  for (let from = bytes.indexOf(wanted); from >= 0;) {
    let to = from + wanted.length;
    // The next one may begin in this one, and is found byte by byte as long as a part of it fits.
    let fits = fallback[wanted.length]!;
    let at = to;
    for (; fits > 0 && at < bytes.length; at += 1) {
      while (fits > 0 && bytes[at] !== wanted[fits]) fits = fallback[fits]!;
      if (bytes[at] === wanted[fits]) fits += 1;
      if (fits < wanted.length) continue;
      const begin = at + 1 - wanted.length;
      if (begin >= to) {
        spans.push({ from, to });
        from = begin;
      }
      to = at + 1;
      fits = fallback[fits]!;
    }
    spans.push({ from, to });
    from = bytes.indexOf(wanted, at);
  }
  return spans;
}
