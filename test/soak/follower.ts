import { inspect } from "node:util";
import type { CoordinatorClient } from "../../client/connect.ts";
import { ENDLESS } from "../../client/watch.ts";
import { watchRun } from "../../client/watch-run.ts";
import { eventsOf } from "./ledger.ts";

/** Follows a run from its beginning to its end, through all that happens, and remembers the place of each event. */
export class Follower {
  /** Resolves at the end of the run. Never rejects: what went wrong is a violation. */
  readonly ended: Promise<void>;
  readonly #runId: string;
  readonly #cursors: string[] = [];
  #failure: unknown;

  constructor(client: CoordinatorClient, runId: string) {
    this.#runId = runId;
    this.ended = this.#follow(client);
  }

  async #follow(client: CoordinatorClient): Promise<void> {
    const { signal } = new AbortController();
    try {
      for await (const update of watchRun(client, this.#runId, { signal, patience: ENDLESS })) {
        if (update.type === "event") this.#cursors.push(update.event.cursor);
      }
    } catch (error) {
      this.#failure = error;
    }
  }

  /** It has seen every event of the run once, in their order. */
  async violations(client: CoordinatorClient): Promise<string[]> {
    if (this.#failure !== undefined) return [`${this.#runId}: its follower failed: ${inspect(this.#failure)}`];
    const stored = (await eventsOf(client, this.#runId)).map(({ cursor }) => cursor);
    if (stored.join() === this.#cursors.join()) return [];
    const missed = stored.filter((cursor) => !this.#cursors.includes(cursor)).length;
    const twice = this.#cursors.length - new Set(this.#cursors).size;
    return [
      `${this.#runId}: its follower saw ${this.#cursors.length} of ${stored.length} events, missed ${missed}, ${twice} twice`,
    ];
  }
}
