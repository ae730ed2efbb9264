/** No number needs a closer look in a text without these: a long row of digits, or an exponent. */
const SUSPECT = /\d{16}|\d[eE]/;
const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;

/**
 * The first number of a JSON text that its readers would change without a word, with what to do about it; undefined when there
 * is none. They keep numbers as doubles: an integer beyond 2^53 becomes another one, `1e400` becomes infinite. Digits behind
 * the point are rounded everywhere, and no fault. What is not JSON is somebody else's to refuse.
 */
export function numberProblem(text: string): string | undefined {
  if (!SUSPECT.test(text)) return undefined;
  for (const literal of suspects(text)) {
    const problem = literalProblem(literal);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** The number itself; NaN for one that a double cannot hold. */
export function heldNumber(literal: string): number {
  return literalProblem(literal) === undefined ? Number(literal) : Number.NaN;
}

/** Every number of the text, without what stands in its strings. */
function* suspects(text: string): Iterable<string> {
  for (let i = 0; i < text.length;) {
    const code = text.charCodeAt(i);
    if (code === 0x22) {
      i = endOfString(text, i + 1);
    } else if (code === 0x2d || (code >= 0x30 && code <= 0x39)) {
      NUMBER.lastIndex = i;
      const literal = NUMBER.exec(text)?.[0];
      if (literal !== undefined && literal.length > 3) yield literal;
      i += literal?.length ?? 1;
    } else i += 1;
  }
}

/** Behind the quotation mark that ends the string; `from` is behind the one that begins it. */
function endOfString(text: string, from: number): number {
  for (let end = text.indexOf('"', from); end >= 0; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (end - 1 - backslashes >= from && text.charCodeAt(end - 1 - backslashes) === 0x5c) backslashes += 1;
    if (backslashes % 2 === 0) return end + 1;
  }
  return text.length;
}

function literalProblem(literal: string): string | undefined {
  const value = Number(literal);
  if (!Number.isFinite(value)) return `${shown(literal)} is larger than any number that JSON readers keep: ${ADVICE}`;
  const held = value === 0 ? !/[1-9]/.test(mantissa(literal)) : Math.abs(value) < 2 ** 53 || sameDigits(literal, value);
  return held
    ? undefined
    : `${shown(literal)} would be read as ${value}, as JSON readers keep numbers as doubles: ${ADVICE}`;
}

const ADVICE = "write it as a string";

/** A number beyond 2^53 survives when a double is exactly it, or is written like it (1e23). */
function sameDigits(literal: string, value: number): boolean {
  if (/^-?\d{1,400}$/.test(literal) && BigInt(literal) === BigInt(value)) return true;
  return scientific(literal) === scientific(String(value));
}

/** One way to write a number: its digits without zeros at both ends, and the power of ten behind them. */
function scientific(literal: string): string {
  const [, sign, whole = "", fraction = "", exponent = "0"] = PARTS.exec(literal) ?? [];
  const digits = `${whole}${fraction}`.replace(/^0+/, "");
  // Not by a pattern: one for zeros at the end begins anew at every zero inside, which a long number makes quadratic.
  let end = digits.length;
  while (digits.charCodeAt(end - 1) === 0x30) end -= 1;
  const trimmed = digits.slice(0, end);
  return `${sign}${trimmed}e${Number(exponent) - fraction.length + digits.length - trimmed.length}`;
}

const PARTS = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/;

function mantissa(literal: string): string {
  return literal.replace(/[eE].*$/, "");
}

function shown(literal: string): string {
  return literal.length > 40 ? `${literal.slice(0, 40)}…` : literal;
}
