import type { Random } from "./random.ts";

/** Levels of sessions below the first, and most that one session starts in a turn. */
const MAX_DEPTH = 3;
const MAX_FAN_OUT = 5;

/** A script of the script agent, as it is written in a prompt. */
type Plan = Record<string, unknown>;

/**
 * A random tree of agents as the script of its first: sessions that work for a moment, start others in every mode, on any
 * of the runners, take a turn afterwards, and fail now and then.
 */
export function randomTree(random: Random, tags: readonly string[]): Plan {
  return turn(random, tags, 0, random.int(2, MAX_FAN_OUT));
}

function turn(random: Random, tags: readonly string[], depth: number, fanOut: number): Plan {
  const start = depth === MAX_DEPTH ? [] : Array.from({ length: fanOut }, () => child(random, tags, depth + 1));
  const goesOn = fanOut > 0 && chance(random, 0.4);
  return {
    sleep: random.int(0, 200) / 1000,
    start,
    wait: chance(random, 0.05),
    ...(goesOn ? { afterwards: turn(random, tags, depth, random.int(0, 1)) } : {}),
    ...(chance(random, 0.15) ? { fail: "as it was told to" } : { result: "done" }),
  };
}

function child(random: Random, tags: readonly string[], depth: number): Plan {
  const fanOut = chance(random, 0.27) ? random.int(1, depth === 1 ? 4 : 2) : 0;
  const mode = chance(random, 0.85) ? "async_callback" : random.pick(["async_poll", "sync"]);
  return {
    mode,
    ...(chance(random, 0.7) ? { tags: [random.pick(tags)] } : {}),
    prompt: turn(random, tags, depth, fanOut),
  };
}

function chance(random: Random, probability: number): boolean {
  return random.next() < probability;
}
