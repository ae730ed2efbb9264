import { setTimeout as delay } from "node:timers/promises";

/**
 * Waits until `probe` returns something truthy, and returns it; throws after `timeoutMs` with `what` and the last answer.
 * Tests wait on states with it instead of sleeping for a guessed time.
 */
export async function until<T>(
  probe: () => T | Promise<T>,
  what: string,
  timeoutMs = 10_000,
): Promise<Exclude<T, null | undefined | false | 0 | "">> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const answer = await probe();
    if (answer) return answer as Exclude<T, null | undefined | false | 0 | "">;
    if (performance.now() > deadline) {
      throw new Error(`not within ${timeoutMs} ms: ${what}; last answer: ${JSON.stringify(answer)}`);
    }
    await delay(5);
  }
}
