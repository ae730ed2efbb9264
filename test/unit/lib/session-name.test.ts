import { describe, expect, it } from "vitest";
import { newId } from "../../../lib/ids.ts";
import { sessionNameProblem } from "../../../lib/protocol/session-name.ts";

describe("the name of a session", () => {
  it.each(["a", "ses", "run", "a@last", "größer 漢字", "a run_1", "-", "Run_1"])("may be %j", (name) => {
    expect(sessionNameProblem(name)).toBeUndefined();
  });

  it.each([
    ["", /is empty: give it one/],
    [" ", /is empty: give it one/],
    ["\u00a0\u3000", /is empty: give it one/],
    [" a", /^the name " a" begins or ends with white space/],
    ["a ", /begins or ends with white space/],
    ["run_", /"run_" begins with run_, as the ids of runs do/],
    [newId("ses"), /begins with ses_, as the ids of sessions do/],
    ["@last", /begins with @, as @last does/],
    ["@me", /begins with @, as @last does/],
  ])("may not be %j", (name, problem) => {
    expect(sessionNameProblem(name)).toMatch(problem);
  });
});
