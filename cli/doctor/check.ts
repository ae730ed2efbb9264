/** One thing that `ao doctor` looked at. */
export interface Check {
  readonly name: string;
  /** `skip`: it could not be looked at, and `detail` says why. */
  readonly status: "pass" | "fail" | "skip";
  readonly detail: string;
  /** What to do about a failure. */
  readonly help?: string;
}
