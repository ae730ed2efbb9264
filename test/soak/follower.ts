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
  readonly #places: string[] = [];
  #failure: unknown;

  constructor(client: CoordinatorClient, runId: string) {
    this.#runId = runId;
    this.ended = this.#follow(client);
  }

  async #follow(client: CoordinatorClient): Promise<void> {
    const { signal } = new AbortController();
    try {
      for await (const update of watchRun(client, this.#runId, { signal, patience: ENDLESS })) {
        if (update.type === "event") this.#places.push(placeOf(update.event.cursor));
      }
    } catch (error) {
      this.#failure = error;
    }
  }

  /** It has seen every event of the run once, in their order. */
  async violations(client: CoordinatorClient): Promise<string[]> {
    if (this.#failure !== undefined) return [`${this.#runId}: its follower failed: ${inspect(this.#failure)}`];
    const stored = (await eventsOf(client, this.#runId)).map(({ cursor }) => placeOf(cursor));
    if (stored.join() === this.#places.join()) return [];
    const missed = stored.filter((place) => !this.#places.includes(place)).length;
    const twice = this.#places.length - new Set(this.#places).size;
    return [
      `${this.#runId}: its follower saw ${this.#places.length} of ${stored.length} events, missed ${missed}, ${twice} twice`,
    ];
  }
}

/** Store and place of a cursor. Its third part is the start of the coordinator that wrote it down, which is another after each kill. */
function placeOf(cursor: string): string {
  return cursor.split(".").slice(0, 2).join(".");
}
