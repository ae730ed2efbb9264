/** Characters that take no column: marks, joiners, selectors. */
const NO_WIDTH = /[\p{Mn}\p{Me}\p{Cf}]/u;
/** Characters that take two: those of East Asia, and emoji. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;

/** What a terminal obeys of colours: it takes no column. */
// eslint-disable-next-line no-control-regex
const COLOUR = /\u001b\[[\d;:]*m/g;

/** Colours and marks belong to what they stand after. */
// eslint-disable-next-line no-control-regex
const CLUSTER = /(?:\u001b\[[\d;:]*m|[^])(?:[\p{Mn}\p{Me}\p{Cf}]|\u001b\[[\d;:]*m)*/gu;

/** Columns that a text takes in a terminal; colours take none. */
export function width(text: string): number {
  // Most texts are plain.
  if (/^[\u0020-\u007e]*$/.test(text)) return text.length;
  let columns = 0;
  for (const c of text.replaceAll(COLOUR, "")) columns += charWidth(c);
  return columns;
}

function charWidth(c: string): number {
  if (NO_WIDTH.test(c)) return 0;
  return WIDE.test(c) ? 2 : 1;
}

/** The beginning of a text on at most `max` columns, with `…` when there is more. */
export function fit(text: string, max: number): string {
  if (width(text) <= max) return text;
  let columns = 0;
  let kept = "";
  for (const c of clusters(text)) {
    columns += width(c);
    if (columns > max - 1) break;
    kept += c;
  }
  return max < 1 ? "" : `${kept.trimEnd()}…`;
}

/** The end of a text on at most `max` columns, with `…` before it when there is more: of a path, that says most. */
export function fitEnd(text: string, max: number): string {
  if (width(text) <= max) return text;
  let columns = 0;
  let kept = "";
  for (const c of [...clusters(text)].toReversed()) {
    columns += width(c);
    if (columns > max - 1) break;
    kept = c + kept;
  }
  return max < 1 ? "" : `…${kept.trimStart()}`;
}

/**
 * Breaks a line between words into lines of at most `max` columns, all but the first with `indent` before them. A longer word
 * is broken, but for a path or a URL: that stays whole, so that it can be copied.
 */
export function wrap(line: string, max: number, indent = ""): string {
  if (width(line) <= max) return line;
  // A gap of several spaces stays with the word before it, as in `name  value`.
  const words = line.match(/\S+\s*|^\s+/g) ?? [];
  const room = Math.max(8, max - width(indent));
  const lines: string[] = [];
  let current = "";
  for (const word of words.flatMap((it) => (it.includes("/") ? [it] : broken(it, room)))) {
    if (current.trim() !== "" && width(current + word.trimEnd()) > max) {
      lines.push(current.trimEnd());
      current = indent;
    }
    current += word;
  }
  return [...lines, current.trimEnd()].join("\n");
}

function broken(word: string, max: number): string[] {
  if (width(word.trimEnd()) <= max) return [word];
  const pieces: string[] = [];
  let piece = "";
  let columns = 0;
  for (const c of clusters(word)) {
    const more = width(c);
    if (columns + more > max) {
      pieces.push(piece);
      piece = "";
      columns = 0;
    }
    piece += c;
    columns += more;
  }
  return [...pieces, piece];
}

/** What must not be torn apart: a character with the marks on it, and what a terminal obeys. */
function* clusters(text: string): Iterable<string> {
  for (const [cluster] of text.matchAll(CLUSTER)) yield cluster;
}
