/** What a name may not begin with: where a session is meant by its name, these begin an id, or `@last`. */
const RESERVED = ["run_", "ses_", "@"];

/**
 * Why a text cannot be the name that a session is given, in words; undefined when it can. Sessions may have such names from a
 * time in which this was not asked: they are found by them, and only a new name has to be better.
 */
export function sessionNameProblem(name: string): string | undefined {
  if (name.trim() === "") return "the name of the session is empty: give it one that people can read, or none";
  const shown = JSON.stringify(name);
  if (name.trim() !== name) {
    return `the name ${shown} begins or ends with white space, which nobody sees: give the session a name without it`;
  }
  const start = RESERVED.find((start) => name.startsWith(start));
  if (start === undefined) return undefined;
  const meaning = start === "@" ? "as @last does" : `as the ids of ${start === "run_" ? "runs" : "sessions"} do`;
  return `the name ${shown} begins with ${start}, ${meaning}, and could not be told from them: give the session another name`;
}
