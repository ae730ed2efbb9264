/** One thing that `ao doctor` looked at. */
export interface Check {
  readonly name: string;
  /** `skip`: it could not be looked at, and `detail` says why. `warn`: it works, and is not as it should be. */
  readonly status: "pass" | "fail" | "skip" | "warn";
  readonly detail: string;
  /** What to do about a failure or a warning. */
  readonly help?: string;
}
