import { Code, ConnectError, createContextKey } from "@connectrpc/connect";
import type { ContextValues } from "@connectrpc/connect";
import { bug } from "../../lib/bug.ts";
import { tokenHash } from "../../lib/ids.ts";
import { bearerToken } from "../../lib/rpc/bearer.ts";
import { notFound } from "../../lib/rpc/error-info.ts";
import type { Store } from "../store/store.ts";
import type { RunTokens } from "./run-tokens.ts";

/** Who made a call (ADR 14). */
export type Caller =
  /** The call is one that anyone may make, so nobody looked at its token. */
  | { readonly type: "anonymous" }
  /** A local user, who needs no token. */
  | { readonly type: "person" }
  /** A runner, with a token that Register returned. */
  | { readonly type: "runner"; readonly runnerId: string; readonly bootId: string }
  /** An executor, with the token of its run. */
  | { readonly type: "run"; readonly runId: string; readonly sessionId: string };

const CALLER = createContextKey<Caller | undefined>(undefined, { description: "who made the call" });

/** For the gate: remembers who made the call that has these values. */
export function setCaller(values: ContextValues, caller: Caller): void {
  values.set(CALLER, caller);
}

/** For handlers: who made this call. */
export function callerOf({ values }: { readonly values: ContextValues }): Caller {
  const caller = values.get(CALLER);
  if (caller === undefined) throw bug("CALLER1", "a handler was called without passing the gate (access/gate.ts)");
  return caller;
}

/** For handlers that list: the session to whose tree the caller is restricted; undefined when it may see everything. */
export function treeOf(context: { readonly values: ContextValues }): string | undefined {
  const caller = callerOf(context);
  return caller.type === "run" ? caller.sessionId : undefined;
}

type HeadersOfCall = Parameters<typeof bearerToken>[0];

/** Tells from the token of a call who made it. One look-up in the store for each call. */
export class Callers {
  readonly #store: Pick<Store, "runnerOfToken" | "leaseOfToken">;
  readonly #runTokens: RunTokens;

  constructor(store: Pick<Store, "runnerOfToken" | "leaseOfToken">, runTokens: RunTokens) {
    this.#store = store;
    this.#runTokens = runTokens;
  }

  /** @throws ConnectError NOT_FOUND for a runner that is not registered, before UNAUTHENTICATED for a wrong token. */
  async runner(headers: HeadersOfCall, runnerId: string): Promise<Caller> {
    const found = await this.#store.runnerOfToken(runnerId, tokenHash(bearerToken(headers) ?? ""));
    if (found === "UNKNOWN") throw notFound("RUNNER_NOT_FOUND", `no runner ${runnerId}: register`);
    if (found !== undefined) return { type: "runner", runnerId, bootId: found.bootId };
    throw new ConnectError(
      `the token is not valid for ${runnerId}: send the one that Register answered as "authorization: Bearer …"; ` +
        "if it was valid before, another process has taken the identity",
      Code.Unauthenticated,
    );
  }

  /** @throws ConnectError UNAUTHENTICATED for a token that is not of a live lease. */
  async personOrRun(headers: HeadersOfCall): Promise<Extract<Caller, { type: "person" | "run" }>> {
    const token = bearerToken(headers);
    if (token === undefined) return { type: "person" };
    const leaseId = this.#runTokens.leaseOf(token);
    const lease = leaseId === undefined ? undefined : await this.#store.leaseOfToken(leaseId);
    if (lease?.live === true) return { type: "run", runId: lease.runId, sessionId: lease.sessionId };
    const why =
      lease === undefined ? "is not a run token of this store" : `has ended with its attempt of ${lease.runId}`;
    throw new ConnectError(`the token ${why}`, Code.Unauthenticated);
  }
}
