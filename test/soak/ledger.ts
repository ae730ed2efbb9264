import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { CoordinatorClient } from "../../client/connect.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { FailureReason, RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { SessionEvent } from "../../gen/agentrunner/v1/session_pb.ts";
import { readFileIfThere } from "../../lib/config/read-file.ts";
import { nameOf } from "../support/coordinator.ts";
import { violations } from "../support/history.ts";

interface Entry {
  readonly runId: string;
  readonly requestId: string;
  /** That its executor prints. */
  readonly lines: number;
}

/** What was acknowledged, held against what the coordinator knows and what the executors wrote down. */
export class Ledger {
  readonly #dir: string;
  readonly #entries: Entry[] = [];
  readonly #endings = new Map<string, number>();
  #withGaps = 0;
  #lines = 0;

  constructor(dir: string) {
    this.#dir = dir;
  }

  acknowledged(runId: string, requestId: string, lines: number): void {
    this.#entries.push({ runId, requestId, lines });
  }

  /** Each broken promise, in words. */
  async violations(client: CoordinatorClient): Promise<string[]> {
    const begun = attemptsIn(join(this.#dir, "begun.log"));
    const worked = attemptsIn(join(this.#dir, "worked.log"));
    const found: string[] = [];
    for (const { runId, lines } of this.#entries) {
      const run = await client.runs.getRun({ runId }).then(
        (answer) => answer.run,
        () => undefined,
      );
      const events = run === undefined ? [] : await eventsOf(client, runId);
      const transitions = events.flatMap(({ event, attempt }) =>
        event.case === "transition" ? [{ state: nameOf(RunState, event.value.state), attempt }] : [],
      );
      const history = {
        runId,
        transitions: transitions.map(({ state }) => state),
        attempts: transitions.map(({ attempt }) => attempt),
        state: run === undefined ? undefined : nameOf(RunState, run.state),
        begun: begun.get(runId) ?? [],
      };
      found.push(...violations([history]));
      if (run === undefined) continue;
      this.#count(run);
      found.push(...this.#outputViolations(run, lines, events, worked.get(runId) ?? []));
    }
    return found;
  }

  #count(run: Run): void {
    const ending =
      run.state === RunState.FAILED ? `FAILED ${nameOf(FailureReason, run.failure)}` : nameOf(RunState, run.state);
    this.#endings.set(ending, (this.#endings.get(ending) ?? 0) + 1);
  }

  /** A completed run has all that its executor printed, or says that something is missing. */
  #outputViolations(run: Run, lines: number, events: readonly SessionEvent[], worked: readonly number[]): string[] {
    if (run.state === RunState.FAILED && run.failure !== FailureReason.LOST) {
      return [`${run.runId}: failed for another reason than that its runner was lost: ${run.message}`];
    }
    if (run.state !== RunState.COMPLETED) return [];
    const found: string[] = [];
    if (!worked.includes(run.attempt)) found.push(`${run.runId}: completed, but attempt ${run.attempt} never worked`);
    if (run.result?.text !== String(lines)) found.push(`${run.runId}: result ${run.result?.text}, not ${lines}`);
    const ofAttempt = events.flatMap(({ event, attempt }) =>
      event.case === "executor" && attempt === run.attempt ? [event.value.event] : [],
    );
    const text = ofAttempt.map((event) => (event.case === "output" ? event.value.text : "")).join("");
    const missing = run.attempts.find(({ attempt }) => attempt === run.attempt)?.eventsMissing ?? 0n;
    if (missing > 0n || ofAttempt.some((event) => event.case === "dropped")) {
      this.#withGaps += 1;
      return found;
    }
    const printed = Array.from({ length: lines }, (_, i) => `line ${i} of an executor that has much to say\n`).join("");
    this.#lines += lines;
    if (text !== printed) {
      found.push(`${run.runId}: has ${text.length} of ${printed.length} characters of output, and no gap is told`);
    }
    return found;
  }

  summary(followers: number): string {
    const endings = [...this.#endings].map(([ending, runs]) => `${runs} ${ending}`).join(", ");
    return (
      `${this.#entries.length} runs acknowledged: ${endings}; ${this.#lines} lines of output compared, ` +
      `${this.#withGaps} completed runs with a gap that is told; ${followers} were followed`
    );
  }
}

/** Every event of a run, page by page. */
export async function eventsOf(client: CoordinatorClient, runId: string): Promise<SessionEvent[]> {
  const { run } = await client.runs.getRun({ runId });
  const all: SessionEvent[] = [];
  for (let cursor = ""; ;) {
    const page = await client.sessions.listSessionEvents({
      sessionId: run?.sessionId ?? "",
      runId,
      pageSize: 1000,
      cursor,
    });
    all.push(...page.events);
    if (!page.more) return all;
    cursor = page.nextCursor;
  }
}

function attemptsIn(path: string): Map<string, number[]> {
  const attempts = new Map<string, number[]>();
  for (const line of (readFileIfThere(path) ?? "").split("\n")) {
    const [runId, attempt] = line.split(" ");
    if (runId === undefined || attempt === undefined) continue;
    attempts.set(runId, [...(attempts.get(runId) ?? []), Number(attempt)]);
  }
  return attempts;
}

/** What SQLite finds wrong with a store that nobody has open. */
export function faultsOfStore(path: string): string[] {
  const db = new DatabaseSync(path, { readOnly: true });
  const damage = db.prepare("PRAGMA integrity_check(10)").all();
  const orphans = db.prepare("PRAGMA foreign_key_check").all();
  db.close();
  return [...damage.filter((row) => row["integrity_check"] !== "ok"), ...orphans].map((row) => JSON.stringify(row));
}
