import { createHmac, timingSafeEqual } from "node:crypto";

/** Makes and reads run tokens: `rt_<lease id>.<proof>`, where the proof shows that this store gave the lease (ADR 14). */
export class RunTokens {
  readonly #secret: string;

  /** `secret` is the store's own key; whoever has it can make tokens. */
  constructor(secret: string) {
    this.#secret = secret;
  }

  /** Token for the executor of a lease. Whether the lease still lives is for the store to say. */
  issue(leaseId: string): string {
    return `rt_${leaseId}.${this.#proof(leaseId)}`;
  }

  /** Lease that a token names; undefined for a token that is not of this store. */
  leaseOf(token: string): string | undefined {
    const [, leaseId, proof] = /^rt_(\w+)\.([0-9a-f]{64})$/.exec(token) ?? [];
    if (leaseId === undefined || proof === undefined) return undefined;
    return timingSafeEqual(Buffer.from(proof), Buffer.from(this.#proof(leaseId))) ? leaseId : undefined;
  }

  #proof(leaseId: string): string {
    return createHmac("sha256", this.#secret).update(leaseId).digest("hex");
  }
}
