import { JSON_MAX_DEPTH } from "./limits.ts";

/** Levels of objects and lists in JSON, from 0 for a number or a text. Counting ends where `max` is passed. */
export function depthOf(json: unknown, max = JSON_MAX_DEPTH): number {
  if (typeof json !== "object" || json === null) return 0;
  if (max === 0) return 1;
  let deepest = 0;
  for (const value of Object.values(json)) {
    deepest = Math.max(deepest, depthOf(value, max - 1));
    if (deepest >= max) break;
  }
  return deepest + 1;
}
