/** What is not right about a configuration, in a word that programs may test. */
export type DiagnosticCode =
  | "agent-default-not-boolean"
  | "agent-description-missing"
  | "agent-duplicate-name"
  | "agent-field-type"
  | "agent-field-unknown"
  | "agent-file-missing"
  | "agent-file-not-text"
  | "agent-file-too-large"
  | "agent-file-unreadable"
  | "agent-keys-ignored"
  | "agent-name-missing"
  | "agent-name-not-text"
  | "agent-not-an-object"
  | "agent-prompt-missing"
  | "agent-prompt-overridden"
  | "agents-unsupported"
  | "agents-too-large"
  | "frontmatter-invalid"
  | "frontmatter-misplaced"
  | "frontmatter-not-a-map"
  | "frontmatter-unterminated"
  | "config-unsupported"
  | "instructions-unreadable"
  | "selected-unknown"
  | "shared-file-replaced"
  | "shared-file-unusable"
  | "shared-link-replaced"
  | "shared-value-replaced"
  | "spec-invalid"
  | "unsafe-path";

/** One thing that is not right, for people and programs. */
export interface Diagnostic {
  readonly code: DiagnosticCode;
  /** `error`: what it is about cannot be used, and is left out. `warning`: it is used, perhaps not as it was meant. */
  readonly severity: "warning" | "error";
  /** What happened, with which value, and what to do. */
  readonly message: string;
  readonly file?: string;
  /** In the file, counted from 1. */
  readonly line?: number;
  /** Name of the sub-agent. */
  readonly agent?: string;
}

/** The configuration cannot be prepared, or may not be because of `strict`. Nothing of the task was written. */
export class AgentConfigError extends Error {
  override readonly name = "AgentConfigError";
  readonly diagnostics: readonly Diagnostic[];

  constructor(diagnostics: readonly Diagnostic[], options?: ErrorOptions) {
    super(diagnostics.map(diagnosticText).join("\n"), options);
    this.diagnostics = diagnostics;
  }
}

/** `agents/reviewer.md:3: message`. */
export function diagnosticText({ file, line, message }: Diagnostic): string {
  if (file === undefined) return message;
  return `${file}${line === undefined ? "" : `:${line}`}: ${message}`;
}

/** An error about one thing. */
export function configError(code: DiagnosticCode, message: string, more: Partial<Diagnostic> = {}): AgentConfigError {
  return new AgentConfigError([{ ...more, code, severity: "error", message }]);
}
