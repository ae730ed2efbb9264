import { sessionNameProblem } from "../../../lib/protocol/session-name.ts";
import { Refusal } from "../refusal.ts";

/** @throws Refusal INVALID_ARGUMENT for a name that no session is given; one that has it is found by it all the same. */
export function mustBeNewName(name: string): void {
  const problem = sessionNameProblem(name);
  if (problem !== undefined) throw new Refusal("INVALID_ARGUMENT", problem, "SESSION_NAME_INVALID");
}
