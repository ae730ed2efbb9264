import jsonc from "jsonc-parser/lib/umd/main.js";
import type { JSONPath, ModificationOptions, ParseError } from "jsonc-parser";
import type { DiagnosticCode } from "./diagnostics.ts";

/** What becomes of the text of a shared file. */
export interface JsonEdited {
  readonly text: string;
  /** What of the old text is not in the new one. The old file is kept beside it. */
  readonly lost: readonly { readonly code: DiagnosticCode; readonly message: string }[];
}

export type JsonObject = Readonly<Record<string, unknown>>;

/** A JSON text, with or without comments and trailing commas, of which parts can be changed and the rest stays as it is. */
export class JsonText {
  #text: string;

  private constructor(text: string) {
    this.#text = text;
  }

  /** @returns a word about what is wrong, when it is no object. */
  static of(text: string): JsonText | string {
    const errors: ParseError[] = [];
    const value: unknown = jsonc.parse(text, errors, { allowTrailingComma: true });
    const [first] = errors;
    if (first !== undefined) {
      const line = text.slice(0, first.offset).split("\n").length;
      return `is no JSON in line ${line} (${jsonc.printParseErrorCode(first.error)})`;
    }
    return isObject(value) ? new JsonText(text) : "holds no JSON object";
  }

  get text(): string {
    return this.#text;
  }

  /** As programs see it: of two keys of the same name, the later one counts. */
  get value(): JsonObject {
    return jsonc.parse(this.#text, [], { allowTrailingComma: true }) as JsonObject;
  }

  set(path: JSONPath, value: unknown): void {
    this.#modify(path, value, {});
  }

  append(path: JSONPath, value: unknown): void {
    this.#modify([...path, -1], value, { isArrayInsertion: true });
  }

  /** Takes an element out of a list, with one of the commas beside it. Comments stay. */
  removeElement(path: JSONPath): void {
    const root = jsonc.parseTree(this.#text, [], { allowTrailingComma: true });
    const node = root === undefined ? undefined : jsonc.findNodeAtLocation(root, path);
    if (node === undefined) return;
    const before = node.parent?.children?.[(path.at(-1) as number) - 1];
    const comma = this.#comma(node.offset + node.length) ?? (before && this.#comma(before.offset + before.length));
    const edits = [{ offset: node.offset, length: node.length, content: "" }];
    if (comma !== undefined) edits.push({ offset: comma, length: 1, content: "" });
    this.#text = jsonc.applyEdits(this.#text, edits);
  }

  /** Where the next token is a comma. */
  #comma(from: number): number | undefined {
    const scanner = jsonc.createScanner(this.#text, true);
    scanner.setPosition(from);
    const token: number = scanner.scan();
    return token === COMMA ? scanner.getTokenOffset() : undefined;
  }

  #modify(path: JSONPath, value: unknown, options: ModificationOptions): void {
    const formattingOptions = { insertSpaces: !/^\t/m.test(this.#text), tabSize: 2, eol: eolOf(this.#text) };
    this.#text = jsonc.applyEdits(this.#text, jsonc.modify(this.#text, path, value, { ...options, formattingOptions }));
  }
}

/** SyntaxKind.CommaToken, which is a type alone to us. */
const COMMA = 5;

/** A new file. */
export function jsonText(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function eolOf(text: string): string {
  return text.includes("\r\n") ? "\r\n" : "\n";
}
