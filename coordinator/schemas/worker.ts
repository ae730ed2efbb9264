import { parentPort } from "node:worker_threads";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { schemaProblem, violations } from "../core/blueprints/json-schema.ts";

/*
 * A thread of its own for JSON Schemas: compiling and applying one is arbitrary work that somebody else chose (a `pattern` that
 * backtracks, `uniqueItems` over a long list). The judge ends this thread when a question takes too long.
 */

/** A question. Both texts are JSON. */
export interface Question {
  readonly schema: string;
  /** Undefined: only whether the schema can be used. */
  readonly value: string | undefined;
  /** What the value is called in the answer. */
  readonly what: string;
}

/** What does not fit, or why the schema cannot be used; READY is said once, before the first question. */
export type Answer = { readonly violations: readonly string[] } | { readonly problem: string } | "READY";

const port = parentPort;
if (port === null) throw new Error("bug[SCHEMA1]: this module is for a worker thread");
port.on("message", (question: Question) => port.postMessage(answer(question)));
// The first schema of a draft costs what the next ones do not: it is not to be taken out of a question's time.
for (const $schema of ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"]) {
  schemaProblem({ $schema });
}
port.postMessage("READY" satisfies Answer);

function answer({ schema, value, what }: Question): Answer {
  const parsed = JSON.parse(schema) as JsonObject;
  const problem = schemaProblem(parsed);
  if (problem !== undefined) return { problem };
  return { violations: value === undefined ? [] : violations(parsed, JSON.parse(value) as JsonValue, what) };
}
