/** What a point needs of the executor; where it is missing the point is skipped. */
export type Need =
  /** Nothing: it holds for every executor. */
  | "nothing"
  /** A model that is asked. */
  | "model";

/** One thing that an executor is held to. */
export interface Point {
  readonly name: string;
  /** What holds, in words. */
  readonly title: string;
  readonly needs: Need;
}

/** The points in the order in which they are looked at. Their names are in the roster (`lacks`) and in the JSON: none is renamed. */
export const POINTS = [
  { name: "start", title: "does a run and ends with its result", needs: "nothing" },
  { name: "session-early", title: "says its session before anything else", needs: "nothing" },
  { name: "exits", title: "exits by itself after its result", needs: "nothing" },
  { name: "resume", title: "goes on with its conversation", needs: "nothing" },
  { name: "resume-other-cwd", title: "goes on with it from another directory", needs: "nothing" },
  { name: "bad-json", title: "refuses stdin that is no JSON, in words", needs: "nothing" },
  { name: "eof", title: "refuses empty stdin, in words", needs: "nothing" },
  { name: "prompt-exact", title: "hands the prompt on as it is", needs: "nothing" },
  { name: "prompt-dash", title: "takes a prompt that begins with -", needs: "nothing" },
  { name: "prompt-1mb", title: "takes a prompt of 1 MB", needs: "nothing" },
  { name: "model-401", title: "fails when the model refuses the key", needs: "model" },
  { name: "model-429", title: "fails, or says that it waits, at a rate limit", needs: "model" },
  { name: "model-529", title: "fails, or says that it waits, when the model is overloaded", needs: "model" },
  { name: "model-drop", title: "fails when the answer breaks off", needs: "model" },
  { name: "model-silent", title: "can be stopped while the model is silent", needs: "model" },
  { name: "stop-graceful", title: "ends on SIGTERM", needs: "nothing" },
  { name: "stop-forced", title: "leaves nothing when it is killed", needs: "nothing" },
  { name: "resume-after-kill", title: "goes on after it was killed", needs: "nothing" },
  { name: "result-then-hang", title: "keeps its result when it hangs after it", needs: "nothing" },
  { name: "tool-group", title: "a stop ends a tool in a process group of its own", needs: "model" },
  { name: "tool-background", title: "ends though a tool left a process in the background", needs: "model" },
  { name: "mcp-child", title: "lets its agent start another one", needs: "model" },
  { name: "mcp-headers", title: "sends the headers of the blueprint's MCP servers", needs: "model" },
  { name: "nothing-left", title: "no process of a run is left 1 s after its end", needs: "nothing" },
  { name: "home-untouched", title: "changes nothing in the user's home", needs: "nothing" },
] as const satisfies readonly Point[];

export type PointName = (typeof POINTS)[number]["name"];

/** What was seen at a point. */
export interface Verdict {
  readonly status: "pass" | "fail" | "skip";
  /** What was seen; of a point that is skipped, why. */
  readonly detail: string;
}

/** A point with what was seen. */
export interface PointReport extends Verdict {
  readonly name: PointName;
  readonly title: string;
  /** Why it is known to fail, as the roster says; empty when it is not. */
  readonly known: string;
  readonly duration_ms: number;
}

export function pass(detail: string): Verdict {
  return { status: "pass", detail };
}

export function fail(detail: string): Verdict {
  return { status: "fail", detail };
}

export function skip(detail: string): Verdict {
  return { status: "skip", detail };
}

/** The report of a point: a failure that the roster names is known, and one that it names and that is none is pointed out. */
export function reportOf(
  { name, title }: { readonly name: PointName; readonly title: string },
  { status, detail }: Verdict,
  lacks: Readonly<Record<string, string>>,
  durationMs: number,
): PointReport {
  const lack = Object.hasOwn(lacks, name) ? (lacks[name] ?? "") : "";
  const stale = status === "pass" && lack !== "" ? `; the roster says that it fails (${lack}): correct the roster` : "";
  const known = status === "fail" ? lack : "";
  return { name, title, status, detail: detail + stale, known, duration_ms: Math.round(durationMs) };
}

/** Whether the executor keeps the contract: no point fails but those that are known to. */
export function isOk(reports: readonly PointReport[]): boolean {
  return reports.every(({ status, known }) => status !== "fail" || known !== "");
}
