/** What was seen of one run from the outside. */
export interface RunHistory {
  readonly runId: string;
  /** States in the order of the run's events. */
  readonly transitions: readonly string[];
  readonly attempts: readonly number[];
  /** State that GetRun answers in the end; undefined for a run that is not known any more. */
  readonly state: string | undefined;
  /** Attempts that an executor wrote down when it began, in that order. */
  readonly begun: readonly number[];
}

const FINAL = new Set(["COMPLETED", "FAILED", "STOPPED"]);

/**
 * The promises that no kill may break (ARCHITECTURE.md, invariants), each broken one in words: an acknowledged run is there and ends
 * (Durable), with one accepted outcome that nothing follows (Single), attempts never fall, and no attempt is executed
 * twice or without its accept (Fenced).
 */
export function violations(history: readonly RunHistory[]): string[] {
  return history.flatMap((run) => violationsOf(run).map((text) => `${run.runId}: ${text}`));
}

function violationsOf({ transitions, attempts, state, begun }: RunHistory): string[] {
  if (state === undefined) return ["was acknowledged and is lost"];
  const found: string[] = [];
  const finals = transitions.filter((name) => FINAL.has(name));
  if (!FINAL.has(state)) found.push(`never ended; it is ${state}`);
  if (finals.length !== 1) found.push(`has ${finals.length} accepted outcomes: ${transitions.join(" ")}`);
  else if (transitions.at(-1) !== finals[0]) found.push(`went on after its outcome: ${transitions.join(" ")}`);
  else if (finals[0] !== state) found.push(`is ${state}, but its outcome was ${finals[0]}`);
  if (attempts.some((attempt, i) => attempt < (attempts[i - 1] ?? 0)))
    found.push(`attempts fell: ${attempts.join(" ")}`);
  const claimed = transitions.filter((name) => name === "CLAIMED").length;
  if (new Set(begun).size !== begun.length) found.push(`an attempt was executed twice: ${begun.join(" ")}`);
  if (begun.some((attempt) => attempt > claimed)) found.push(`attempt ${begun.join(" ")} ran with ${claimed} accepts`);
  if (state === "COMPLETED" && begun.length === 0) found.push("completed without being executed");
  return found;
}
