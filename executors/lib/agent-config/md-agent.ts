import { readFileSync, statSync } from "node:fs";
import { LineCounter, isMap, parseDocument } from "yaml";
import { fileProblem } from "../../../lib/config/file-problem.ts";
import { NotText, utf8Text } from "../../../lib/text.ts";
import type { MdAgent } from "./agent-fields.ts";
import type { Diagnostic, DiagnosticCode } from "./diagnostics.ts";

export interface ParsedMdAgent {
  /** Keys of the frontmatter, and `prompt`, the text below it. Empty when the file cannot be used. */
  readonly agent: MdAgent;
  readonly diagnostics: readonly Diagnostic[];
}

/** A prompt of a sub-agent is a page or two; what is longer is another file. */
const MAX_BYTES = 1024 * 1024;

/**
 * Reads a sub-agent from Markdown: YAML between two lines `---`, of which the first is the first line of the file, and
 * below them the prompt. Without them the whole file is the prompt.
 *
 * It never throws for what the file holds, nor for a file that is not there: the diagnostics say where it is wrong. One
 * of severity `error` means that there is no agent in it.
 */
export function parseMdAgent(path: string): ParsedMdAgent {
  const diagnostics: Diagnostic[] = [];
  const say = (code: DiagnosticCode, severity: Diagnostic["severity"], message: string, line?: number) =>
    diagnostics.push({ code, severity, message, file: path, ...(line === undefined ? {} : { line }) });
  const agent = agentIn(path, say);
  return { agent, diagnostics };
}

type Say = (code: DiagnosticCode, severity: Diagnostic["severity"], message: string, line?: number) => void;

function agentIn(path: string, say: Say): MdAgent {
  const text = textOf(path, say);
  if (text === undefined) return {};
  const lines = text.split("\n");
  if (!isDelimiter(lines[0])) {
    sayMisplaced(lines, say);
    return { prompt: text.trim() };
  }
  const end = lines.findIndex((line, index) => index > 0 && isDelimiter(line));
  if (end < 0) {
    say("frontmatter-unterminated", "error", 'the frontmatter has no end: put a line "---" below it', 1);
    return {};
  }
  const prompt = lines
    .slice(end + 1)
    .join("\n")
    .trim();
  const keys = frontmatter(lines.slice(1, end).join("\n"), say);
  if (keys === undefined) return {};
  if (Object.hasOwn(keys, "prompt")) {
    say(
      "agent-prompt-overridden",
      "warning",
      "prompt of the frontmatter is not used: the text below it is the prompt",
      1,
    );
  }
  return { ...keys, prompt };
}

function isDelimiter(line: string | undefined): boolean {
  return line !== undefined && /^---[ \t]*$/.test(line);
}

/** Says when somebody seems to have meant a frontmatter that is none. */
function sayMisplaced(lines: readonly string[], say: Say): void {
  const [first = ""] = lines;
  if (/^---[^-]/.test(first)) {
    say("frontmatter-misplaced", "warning", 'the whole file is the prompt: "---" must stand alone on its line', 1);
    return;
  }
  const at = lines.findIndex((line) => line.trim() !== "");
  if (at > 0 && isDelimiter(lines[at])) {
    say("frontmatter-misplaced", "warning", 'the whole file is the prompt: "---" must be its first line', at + 1);
  }
}

function textOf(path: string, say: Say): string | undefined {
  try {
    const stats = statSync(path);
    if (stats.isDirectory()) {
      say("agent-file-missing", "error", "is a folder: name the file of the sub-agent");
      return undefined;
    }
    if (stats.size > MAX_BYTES) {
      say("agent-file-too-large", "error", `has ${stats.size} bytes: a sub-agent may have ${MAX_BYTES}`);
      return undefined;
    }
    return utf8Text(readFileSync(path)).replaceAll(/\r\n?/g, "\n");
  } catch (error) {
    if (error instanceof NotText) {
      const line = /\(line (\d+)\)/.exec(error.message)?.[1];
      say("agent-file-not-text", "error", error.message, line === undefined ? undefined : Number(line));
    } else if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      say("agent-file-missing", "error", "does not exist: correct the path, or take the sub-agent out");
    } else {
      say("agent-file-unreadable", "error", fileProblem(error, path));
    }
    return undefined;
  }
}

/** @returns undefined when the YAML cannot be read; empty for what is no map. */
function frontmatter(yaml: string, say: Say): Record<string, unknown> | undefined {
  const counter = new LineCounter();
  const document = parseDocument(yaml, { lineCounter: counter, prettyErrors: false });
  for (const error of document.errors) {
    // The first line of the file is the delimiter.
    say(
      "frontmatter-invalid",
      "error",
      `the frontmatter is no YAML: ${error.message}`,
      1 + counter.linePos(error.pos[0]).line,
    );
  }
  if (document.errors.length > 0) return undefined;
  if (document.contents === null) return {};
  if (!isMap(document.contents)) {
    say(
      "frontmatter-not-a-map",
      "warning",
      "the frontmatter has no keys, and is not used: write `name: value` lines",
      2,
    );
    return {};
  }
  try {
    return { ...(document.toJS({ maxAliasCount: 100 }) as Record<string, unknown>) };
  } catch (error) {
    // An alias that leads nowhere, or to too much.
    say(
      "frontmatter-invalid",
      "error",
      `the frontmatter is no YAML: ${error instanceof Error ? error.message : String(error)}`,
      2,
    );
    return undefined;
  }
}
