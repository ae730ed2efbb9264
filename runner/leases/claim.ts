/** Where a state directory is, as far as the system tells one from its copies. What is not known is empty. */
export interface Place {
  /** Of the system's installation. */
  readonly machineId: string;
  /** Of the running system, new after every start of the machine. */
  readonly machineBootId: string;
  readonly path: string;
  readonly dev: string;
  readonly ino: string;
}

/** What a process that has locked a state directory may say of the process whose boot_id it found there. */
export type Claim =
  /** There was none. */
  | { readonly type: "first" }
  /** That process held the lock of this very directory and is dead. */
  | { readonly type: "proven" }
  /** The directory may be a copy: only the coordinator can tell whether the process that it is of lives. */
  | { readonly type: "unproven"; readonly why: string }
  /** It is a copy, for what it is a copy of is still there. */
  | { readonly type: "copy"; readonly original: string };

/**
 * Decides about a directory that a process `recorded` at one place and another one finds at `here`. The lock protects a
 * path and not an identity: a copy and the clone of a machine have locks of their own. `isThere` looks for the original.
 */
export function claimOf(recorded: Place, here: Place, isThere: (place: Place) => boolean): Claim {
  const differs = (key: keyof Place): boolean =>
    recorded[key] !== "" && here[key] !== "" && recorded[key] !== here[key];
  if (differs("machineId")) return { type: "unproven", why: "another machine has written it" };
  if (differs("machineBootId")) return { type: "unproven", why: "the machine was started again since it was written" };
  if (!differs("dev") && !differs("ino")) return { type: "proven" };
  if (recorded.path !== "" && isThere(recorded)) return { type: "copy", original: recorded.path };
  return { type: "unproven", why: `it was moved, copied or restored from ${recorded.path}` };
}
