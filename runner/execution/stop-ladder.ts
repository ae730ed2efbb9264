import { TIMER_MAX_MS } from "../../lib/config/kinds.ts";
import type { ProcessGroup } from "./processes.ts";

type Step =
  | { type: "not-begun" }
  | { type: "terminating"; since: number; killAt: number; timer: NodeJS.Timeout }
  | { type: "killed"; at: number; graceMs: number }
  | { type: "left" };

/** The stop ladder (ADR 12): SIGTERM to the process group, a grace, SIGKILL. Times are of `performance.now()`. */
export class StopLadder {
  readonly #group: ProcessGroup;
  readonly #onKilled: () => void;
  #step: Step = { type: "not-begun" };

  constructor(group: ProcessGroup, onKilled: () => void) {
    this.#group = group;
    this.#onKilled = onKilled;
  }

  /** True once SIGTERM was sent. */
  get begun(): boolean {
    return this.#step.type !== "not-begun";
  }

  /** When SIGKILL was sent, and how long after SIGTERM. */
  get killed(): { at: number; graceMs: number } | undefined {
    return this.#step.type === "killed" ? this.#step : undefined;
  }

  /** Begins, or brings SIGKILL forward when `graceMs` from now is sooner; never puts it off. */
  climb(graceMs: number): void {
    const now = performance.now();
    const killAt = now + Math.min(graceMs, TIMER_MAX_MS);
    switch (this.#step.type) {
      case "not-begun":
        this.#group.signal("SIGTERM");
        this.#step = { type: "terminating", since: now, killAt, timer: this.#arm(killAt - now) };
        return;
      case "terminating":
        if (killAt >= this.#step.killAt) return;
        clearTimeout(this.#step.timer);
        this.#step = { ...this.#step, killAt, timer: this.#arm(killAt - now) };
        return;
      case "killed":
      case "left":
        return;
      default:
        this.#step satisfies never;
    }
  }

  /** Ends it: the group is gone, and nothing is sent any more. */
  leave(): void {
    if (this.#step.type === "terminating") clearTimeout(this.#step.timer);
    this.#step = { type: "left" };
  }

  #arm(delayMs: number): NodeJS.Timeout {
    return setTimeout(() => {
      if (this.#step.type !== "terminating") return;
      const at = performance.now();
      this.#group.signal("SIGKILL");
      this.#step = { type: "killed", at, graceMs: at - this.#step.since };
      this.#onKilled();
    }, delayMs);
  }
}
