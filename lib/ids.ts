import { createHash, randomBytes, randomUUID } from "node:crypto";

/** What identifies a runner; two processes that agree on all of it are the same runner (ADR 3). */
export interface RunnerIdentity {
  readonly hostname: string;
  /** Real path: symlinks resolved. */
  readonly projectDir: string;
  readonly executorProfile: string;
  /** Empty when none was given. */
  readonly name: string;
}

/**
 * `lnch_` and 12 hex digits of the SHA-256 over the JSON array of the identity. An array, so that no separator inside
 * a value can make two runners one; the name is left out when it is empty, so that naming nothing changes nothing.
 */
export function runnerId(identity: RunnerIdentity): string {
  const parts = [identity.hostname, identity.projectDir, identity.executorProfile];
  if (identity.name !== "") parts.push(identity.name);
  return `lnch_${createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 12)}`;
}

/** Prefixes of the ids that are made up rather than derived. */
export type IdPrefix = "run" | "ses" | "lease" | "boot" | "stream" | "store";

/**
 * A new id such as `run_019f2c…`: the prefix, 12 hex digits of epoch milliseconds and 62 random bits. Ids that are made
 * one after the other stand beside each other in an index, which is then written page by page instead of all over.
 */
export function newId(prefix: IdPrefix): string {
  return `${prefix}_${newSortable()}`;
}

/** 12 hex digits of epoch milliseconds and 62 random bits: what is made later sorts later. */
export function newSortable(): string {
  // The last two groups of a UUID; Node draws its randomness in advance, which makes it the cheapest there is.
  const random = randomUUID().slice(19).replace("-", "");
  return `${Date.now().toString(16).padStart(12, "0")}${random}`;
}

/** True for a whole id of `newId`, and not the beginning of one. */
export function isWholeId(prefix: IdPrefix, text: string): boolean {
  return text.startsWith(`${prefix}_`) && /^[0-9a-f]{28}$/.test(text.slice(prefix.length + 1));
}

/** A new secret of 256 random bits, as 64 hex digits after its prefix. */
export function newToken(prefix: "rt" | "lt"): string {
  return `${prefix}_${randomBytes(32).toString("hex")}`;
}

/** What is stored of a secret: its SHA-256 in hex. */
export function tokenHash(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}
