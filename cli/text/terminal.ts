/*
 * What programs say reaches a terminal only as text and colour. Everything else that a terminal obeys (titles, the clipboard,
 * the cursor, the bell, the direction of the text) is taken out, because agents print what others wrote.
 */

/** Longest parameters of a colour sequence; a longer one is no colour. */
const SGR_MAX_CHARACTERS = 64;
/** Longest control string, such as a title; what follows is text again. Nothing of it is held. */
const STRING_MAX_CHARACTERS = 1024 * 1024;

/** All that is not plain text: controls but tab and line feed, DEL, C1, bidi embeddings, overrides and isolates. */
// eslint-disable-next-line no-control-regex
const SPECIAL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** C1 controls, and what an ESC and this character after it say in their place. */
const C1_AS_ESC: Readonly<Record<string, string>> = {
  "\u0090": "P",
  "\u0098": "X",
  "\u009b": "[",
  "\u009d": "]",
  "\u009e": "^",
  "\u009f": "_",
};

type Mode =
  | { readonly type: "text" }
  /** After a CR: a line feed makes it a line end. */
  | { readonly type: "cr" }
  | { readonly type: "escape" }
  /** Within `ESC [`; undefined once it can be no colour. */
  | { readonly type: "csi"; parameters: string | undefined }
  /** Within a title, a clipboard write or the like, until its end, a line end or its bound. */
  | { readonly type: "string"; left: number };

const TEXT: Mode = { type: "text" };

/**
 * Lets text, tabs, line ends and colours through to a terminal. A sequence may be split over chunks; at most
 * `SGR_MAX_CHARACTERS` are held. A CR that ends no line begins a new one, so that nothing is written over.
 */
export class TerminalFilter {
  readonly #colour: boolean;
  #mode: Mode = TEXT;
  #styled = false;

  /** `colour`: false takes the colours out too. */
  constructor(colour = true) {
    this.#colour = colour;
  }

  /** What of the chunk is for the terminal. */
  write(chunk: string): string {
    let out = "";
    let at = 0;
    while (at < chunk.length) {
      if (this.#mode.type === "text") {
        SPECIAL.lastIndex = at;
        const next = SPECIAL.exec(chunk)?.index ?? chunk.length;
        out += chunk.slice(at, next);
        at = next;
        if (at === chunk.length) break;
      }
      const [text, again] = this.#step(chunk.charAt(at));
      out += text;
      if (!again) at += 1;
    }
    return out;
  }

  /** Makes room for a line of somebody else: returns the sequence that ends colours, if any are on. */
  pause(): string {
    const styled = this.#styled;
    if (this.#mode.type === "cr") this.#mode = TEXT;
    this.#styled = false;
    return styled ? "\u001b[0m" : "";
  }

  /** The text that a character adds, and whether it has to be looked at again in the new mode. */
  #step(c: string): readonly [text: string, again: boolean] {
    const mode = this.#mode;
    switch (mode.type) {
      case "text":
        this.#begin(c);
        return ["", false];
      case "cr":
        if (c === "\r") return ["", false];
        this.#mode = TEXT;
        return c === "\n" ? ["\n", false] : ["\n", true];
      case "escape":
        return ["", this.#escape(c)];
      case "csi":
        return this.#csi(c, mode);
      default:
        return ["", this.#string(c, mode)];
    }
  }

  /** A special character in the text; one that begins nothing is dropped. */
  #begin(c: string): void {
    const esc = C1_AS_ESC[c];
    if (c === "\r") this.#mode = { type: "cr" };
    else if (c === "\u001b") this.#mode = { type: "escape" };
    else if (esc !== undefined) this.#escape(esc);
  }

  #escape(c: string): boolean {
    // An intermediate, as of a character set: the final one is still to come.
    if (c >= " " && c <= "/") return false;
    if (c === "[") this.#mode = { type: "csi", parameters: "" };
    else if ("]PX^_".includes(c)) this.#mode = { type: "string", left: STRING_MAX_CHARACTERS };
    else {
      this.#mode = TEXT;
      return c < " " || c > "~";
    }
    return false;
  }

  #csi(c: string, mode: Mode & { type: "csi" }): readonly [string, boolean] {
    if (c >= " " && c <= "?") {
      const grown = `${mode.parameters ?? ""}${c}`;
      const colour = mode.parameters !== undefined && /^[\d;:]*$/.test(c) && grown.length <= SGR_MAX_CHARACTERS;
      mode.parameters = colour ? grown : undefined;
      return ["", false];
    }
    this.#mode = TEXT;
    if (c < "@" || c > "~") return ["", true];
    if (c !== "m" || mode.parameters === undefined || !this.#colour) return ["", false];
    const parameters = withoutConceal(mode.parameters);
    if (parameters === undefined) return ["", false];
    this.#styled = !/^0*$/.test(parameters);
    return [`\u001b[${parameters}m`, false];
  }

  #string(c: string, mode: Mode & { type: "string" }): boolean {
    mode.left -= 1;
    // CAN and SUB cancel; a line end does, too, or one stray sequence would hide everything after it.
    const over = "\u0007\u009c\u0018\u001a".includes(c);
    if (c === "\u001b") this.#mode = { type: "escape" };
    else if (over || c === "\n" || mode.left <= 0) this.#mode = TEXT;
    return c === "\n";
  }
}

/** Text that is there and cannot be seen is no colour. Undefined when nothing is left; the arguments of 38, 48 and 58 stay. */
function withoutConceal(parameters: string): string | undefined {
  const kept: string[] = [];
  const given = parameters.split(";");
  for (let at = 0; at < given.length; at += 1) {
    const one = given[at] ?? "";
    const takes = /^0*[345]8$/.test(one) ? (Number(given[at + 1]) === 5 ? 2 : 4) : 0;
    if (Number.parseInt(one, 10) !== 8) kept.push(...given.slice(at, at + 1 + takes));
    at += takes;
  }
  return kept.length === 0 ? undefined : kept.join(";");
}

/** A whole text as a terminal may have it. */
export function forTerminal(text: string, colour = true): string {
  const filter = new TerminalFilter(colour);
  return filter.write(text) + filter.pause();
}

/** JSON for a terminal: the same value, with what a terminal obeys written as escapes. */
export function jsonForTerminal(json: string): string {
  return json.replaceAll(SPECIAL, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
