import { createHash } from "node:crypto";
import { hostname } from "node:os";
import { newSortable } from "../lib/ids.ts";

/** Where `ao` was called: who starts runs from the same place finds the newest of them as `@last`. */
export interface Place {
  readonly uid: number;
  readonly hostname: string;
  readonly directory: string;
}

/** The beginning of the request ids of what is started from a place. */
export function requestPrefix({ uid, hostname: host, directory }: Place): string {
  const digest = createHash("sha256").update(JSON.stringify([uid, host, directory]));
  return `ao-${digest.digest("hex").slice(0, 12)}-`;
}

/** A new request id; of two from one place, the later sorts later. */
export function newRequestId(place: Place): string {
  return requestPrefix(place) + newSortable();
}

/** This user in this directory of this host. */
export function here(): Place {
  return { uid: process.getuid?.() ?? -1, hostname: hostname(), directory: workingDirectory() };
}

/** The directory may have been deleted, which is no reason to start nothing. */
function workingDirectory(): string {
  try {
    return process.cwd();
  } catch {
    return "";
  }
}
