import type { RunnerIdentity } from "../../lib/ids.ts";
import type { Log } from "../../lib/log.ts";
import { bug } from "../../lib/bug.ts";
import { knownIds, removeIdentity, writeIdentity } from "./identity-file.ts";
import { openStateDir, StateRefusedError } from "./state-dir.ts";
import type { StateDir } from "./state-dir.ts";

/** Who looks for its state, and where. */
export interface StateOwner extends RunnerIdentity {
  readonly stateDir: string;
  /** No state under another host name is this runner's. */
  readonly fixedHostname: boolean;
}

/**
 * Opens the state that this runner left when it was last at work here, under whatever host name, or new state.
 *
 * @throws StateRefusedError
 */
export function openKnownState(
  owner: StateOwner,
  log: Log,
  openState: typeof openStateDir = openStateDir,
): { readonly runnerId: string; readonly state: StateDir } {
  const { stateDir, hostname, fixedHostname } = owner;
  const ids = knownIds(stateDir, owner, !fixedHostname);
  for (const [i, runnerId] of ids.entries()) {
    const isLast = i === ids.length - 1;
    try {
      const state = openState(stateDir, runnerId, log);
      if (!isLast) log.info({ runner_id: runnerId, hostname }, "the host has another name; the runner is the same");
      noteIdentity(owner, runnerId, log);
      return { runnerId, state };
    } catch (error) {
      // A runner of a host that cannot be told from this one is at work there. The last id is this one's own.
      if (isLast || !(error instanceof StateRefusedError && error.locked)) throw error;
    }
  }
  throw bug("STATE1", "a runner has no id");
}

function noteIdentity(owner: StateOwner, runnerId: string, log: Log): void {
  try {
    // Whose host name is given is found by that alone, and is nobody else.
    if (owner.fixedHostname) removeIdentity(owner.stateDir, runnerId);
    else writeIdentity(owner.stateDir, runnerId, owner);
  } catch (error) {
    const what = "whose state this is was not written; under another host name it is not found again";
    log.warn({ reason: String(error) }, what);
  }
}
