/** What an agent's report of tokens and money stands for. */
export type UsageRule =
  /** Each report is of one step: they are added up. */
  | "delta"
  /** Each report is of the run so far: the last one counts. */
  | "total"
  /** Each report is of the whole conversation: what earlier runs used is taken off. */
  | "sum"
  /** It reports none. Unknown is not zero. */
  | "none";

/** Absent: not known. */
export interface Usage {
  readonly inputTokens?: number | undefined;
  readonly outputTokens?: number | undefined;
  readonly costUsd?: number | undefined;
}

const KEYS = ["inputTokens", "outputTokens", "costUsd"] as const;

/**
 * The usage of the run after one more report.
 * @param soFar usage of the run before this report.
 * @param before usage of the conversation at the end of its last run, for the rule `sum`.
 */
export function usageAfter(rule: UsageRule, soFar: Usage, report: Usage, before: Usage = {}): Usage {
  switch (rule) {
    case "delta":
      return combined(soFar, report, (sum, one) => sum + one);
    case "total":
      return { ...soFar, ...known(report) };
    case "sum":
      return combined(before, report, (earlier, all) => Math.max(0, all - earlier), report);
    case "none":
      return soFar;
    default:
      return rule satisfies never;
  }
}

function combined(a: Usage, b: Usage, join: (a: number, b: number) => number, only: Usage = { ...a, ...b }): Usage {
  return Object.fromEntries(
    KEYS.flatMap((key) => {
      if (only[key] === undefined) return [];
      return [[key, join(a[key] ?? 0, b[key] ?? 0)]];
    }),
  );
}

function known(usage: Usage): Usage {
  return Object.fromEntries(KEYS.flatMap((key) => (usage[key] === undefined ? [] : [[key, usage[key]]])));
}
