/** The process that has a runner's identity. */
export interface Incumbent {
  readonly bootId: string;
  /** True while its stream is open or it was heard from within two heartbeats. */
  readonly live: boolean;
}

/** NEW: nobody has the identity. SAME: the same process again. REPLACE: the newcomer takes over. TWIN: it may not. */
export type RegistrationKind = "NEW" | "SAME" | "REPLACE" | "TWIN";

/** What makes a runner the one that it is, on its host. */
export interface RunnerPlace {
  readonly projectDir: string;
  readonly executorProfile: string;
  readonly name: string;
}

/**
 * Whether a runner keeps the id that it remembers: nobody has that id, or one in the same place. A runner that was moved to
 * another directory with its state, or has another profile or name now, gets the id of its new place.
 * @param known who has the id; undefined when nobody has.
 */
export function keepsId(known: RunnerPlace | undefined, newcomer: RunnerPlace): boolean {
  if (known === undefined) return true;
  return (
    known.projectDir === newcomer.projectDir &&
    known.executorProfile === newcomer.executorProfile &&
    known.name === newcomer.name
  );
}

/** Decides who has a runner's identity (ADR 3). */
export function registration(
  incumbent: Incumbent | undefined,
  newcomer: { readonly bootId: string; readonly previousBootId: string },
): RegistrationKind {
  if (incumbent === undefined) return "NEW";
  if (incumbent.bootId === newcomer.bootId) return "SAME";
  // The state directory is locked by its process: who knows the incumbent's boot_id has taken its place.
  if (incumbent.bootId === newcomer.previousBootId) return "REPLACE";
  return incumbent.live ? "TWIN" : "REPLACE";
}
