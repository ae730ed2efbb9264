import { EXIT } from "../exit-codes.ts";
import type { ExitCode } from "../exit-codes.ts";

/** What went wrong with a call, for people. */
export interface CallTrouble {
  /** One line. */
  readonly text: string;
  /** What to do next, when we know. */
  readonly hint: string | undefined;
  /** Exit code of a program that ends because of it. */
  readonly exitCode: ExitCode;
}

/** The coordinator did not answer. */
export function unreachable(why: string, url: string, hint: string): CallTrouble {
  return { text: `cannot reach coordinator at ${url} (${why})`, hint, exitCode: EXIT.unreachable };
}

/** It answered, or what stands before it did: no. */
export function refused(text: string, hint: string | undefined): CallTrouble {
  return { text, hint, exitCode: EXIT.refused };
}
