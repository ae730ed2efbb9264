/** The process that has a runner's identity. */
export interface Incumbent {
  readonly bootId: string;
  /** True while its stream is open or it was heard from within two heartbeats. */
  readonly live: boolean;
}

/** NEW: nobody has the identity. SAME: the same process again. REPLACE: the newcomer takes over. TWIN: it may not. */
export type RegistrationKind = "NEW" | "SAME" | "REPLACE" | "TWIN";

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
