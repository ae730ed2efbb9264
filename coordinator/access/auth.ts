import { createHmac, timingSafeEqual } from "node:crypto";
import { Code, ConnectError } from "@connectrpc/connect";
import type { HandlerContext } from "@connectrpc/connect";
import { bearerToken } from "../../lib/rpc/bearer.ts";
import { tokenHash } from "../../lib/ids.ts";
import type { Store } from "../store/store.ts";

/** Who calls a client service: a local user, or an executor with the token of its run (design §4.4, §5). */
export type Caller =
  | { readonly kind: "LOCAL" }
  | { readonly kind: "RUN"; readonly runId: string; readonly sessionId: string };

/** Checks the tokens of runners and of runs. */
export class Auth {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Token for the executor of a lease: the lease, and a proof that this store gave it. */
  runToken(leaseId: string): string {
    return `rt_${leaseId}.${this.#proof(leaseId)}`;
  }

  #proof(leaseId: string): string {
    return createHmac("sha256", this.#store.secret).update(leaseId).digest("hex");
  }

  /** @throws ConnectError NOT_FOUND for a runner that is not registered, before UNAUTHENTICATED for a wrong token. */
  async runner(context: HandlerContext, runnerId: string): Promise<{ bootId: string }> {
    const found = await this.#store.runnerOfToken(runnerId, tokenHash(bearerToken(context.requestHeader) ?? ""));
    if (found === "UNKNOWN") throw new ConnectError(`no runner ${runnerId}: register`, Code.NotFound);
    if (found !== undefined) return found;
    throw new ConnectError(
      `the token is not valid for ${runnerId}: send the one that Register answered as "authorization: Bearer …"; ` +
        "if it was valid before, another process has taken the identity",
      Code.Unauthenticated,
    );
  }

  /** @throws ConnectError UNAUTHENTICATED for a token that is not of a live lease. */
  async caller(context: HandlerContext): Promise<Caller> {
    const token = bearerToken(context.requestHeader);
    if (token === undefined) return { kind: "LOCAL" };
    const leaseId = this.#leaseOf(token);
    const lease = leaseId === undefined ? undefined : await this.#store.leaseOfToken(leaseId);
    if (lease?.live === true) return { kind: "RUN", runId: lease.runId, sessionId: lease.sessionId };
    const why =
      lease === undefined ? "is not a run token of this store" : `has ended with its attempt of ${lease.runId}`;
    throw new ConnectError(`the token ${why}`, Code.Unauthenticated);
  }

  #leaseOf(token: string): string | undefined {
    const [, leaseId, proof] = /^rt_(\w+)\.([0-9a-f]{64})$/.exec(token) ?? [];
    if (leaseId === undefined || proof === undefined) return undefined;
    return timingSafeEqual(Buffer.from(proof), Buffer.from(this.#proof(leaseId))) ? leaseId : undefined;
  }

  /** @throws ConnectError PERMISSION_DENIED when the caller is an executor of another tree of sessions. */
  async mayUse(caller: Caller, sessionId: string): Promise<void> {
    if (caller.kind === "LOCAL" || (await this.#store.isWithin(sessionId, caller.sessionId))) return;
    throw denied(`session ${sessionId}`);
  }

  /** @throws ConnectError PERMISSION_DENIED unless the caller is a local user. */
  async mustBeLocal(context: HandlerContext): Promise<void> {
    if ((await this.caller(context)).kind === "RUN") throw denied("the fleet");
  }
}

export function denied(what: string): ConnectError {
  return new ConnectError(
    `a run token is good for its own session and those below it, not for ${what}`,
    Code.PermissionDenied,
  );
}
