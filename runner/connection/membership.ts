import { abortable } from "../../lib/rpc/abortable.ts";

/** What the coordinator answered to Register. */
export interface Registration {
  readonly runnerId: string;
  readonly token: string;
  readonly storeId: string;
}

type State =
  /** Not registered, or not any more; `registered` resolves with the next registration. */
  | { readonly type: "none"; readonly ever: boolean; readonly registered: PromiseWithResolvers<Registration> }
  | { readonly type: "member"; readonly registration: Registration }
  /** Deregisters: nothing that the coordinator answers is a reason to register again. */
  | { readonly type: "leaving"; readonly registration: Registration };

/** Whether the coordinator knows this runner, and as whom. */
export class Membership {
  #state: State = { type: "none", ever: false, registered: Promise.withResolvers() };

  /** The registration that calls are made with; undefined while there is none. */
  get registration(): Registration | undefined {
    return this.#state.type === "none" ? undefined : this.#state.registration;
  }

  get leaving(): boolean {
    return this.#state.type === "leaving";
  }

  /** True until the coordinator has answered Register for the first time. */
  get firstContact(): boolean {
    return this.#state.type === "none" && !this.#state.ever;
  }

  /** The registration, as soon as there is one. Rejects with the signal's reason when that comes first. */
  async registered(closing: AbortSignal): Promise<Registration> {
    const state = this.#state;
    return state.type === "none" ? await abortable(state.registered.promise, closing) : state.registration;
  }

  /** The coordinator knows the runner. Those who wait for that go on after the present turn of the event loop. */
  join(registration: Registration): void {
    const before = this.#state;
    this.#state = { type: "member", registration };
    if (before.type === "none") before.registered.resolve(registration);
  }

  /** The coordinator does not know the registration any more. False when it is not the present one, or the runner leaves. */
  forget(registration: Registration): boolean {
    if (this.#state.type !== "member" || this.#state.registration !== registration) return false;
    this.#state = { type: "none", ever: true, registered: Promise.withResolvers() };
    return true;
  }

  /** Begins to leave. The registration to give back; undefined when there is none. */
  leave(): Registration | undefined {
    const { registration } = this;
    if (registration !== undefined) this.#state = { type: "leaving", registration };
    return registration;
  }
}
