import { OFFER_UNDER_WAY } from "../../lib/protocol/pending.ts";

/** What a runner is for as long as it is registered. */
export interface RunnerTraits {
  readonly runnerId: string;
  readonly hostname: string;
  readonly projectDir: string;
  readonly executorProfile: string;
  readonly tags: readonly string[];
  readonly requireMatchingTags: boolean;
  /** Optional abilities, as it registered with. */
  readonly capabilities: readonly string[];
}

/** A runner as it is now. */
export interface RunnerFacts extends RunnerTraits {
  readonly maxRuns: number;
  /** Runs that it holds, offers included. */
  readonly activeRuns: number;
  /** Runs that it can take now. */
  readonly freeSlots: number;
  readonly draining: boolean;
  readonly presence: "ONLINE" | "NO_STREAM" | "AWAY" | "UNCONFIRMED";
}

/** What a run asks for. Empty strings and lists ask for nothing. */
export interface Requirements {
  readonly executorProfile: string;
  readonly hostname: string;
  readonly projectDir: string;
  readonly tags: readonly string[];
  /** Runner that holds the session's files, when only that one will do. */
  readonly affinityRunnerId: string;
  /** Capabilities that a runner must have. */
  readonly needs: readonly string[];
}

/** Why a runner does not take a run: `never` while both stay what they are, `notNow` until something ends. */
export interface Mismatch {
  readonly never: readonly string[];
  readonly notNow: readonly string[];
}

/** Both lists are empty when the runner can take the run now (ADR 10). */
export function match(runner: RunnerFacts, requirements: Requirements): Mismatch {
  return { never: obstacles(runner, requirements), notNow: delays(runner) };
}

/** True when the runner could take the run at some time. */
export function suits(runner: RunnerTraits, requirements: Requirements): boolean {
  return obstacles(runner, requirements).length === 0;
}

function obstacles(runner: RunnerTraits, requirements: Requirements): string[] {
  const reasons: string[] = [];
  if (requirements.affinityRunnerId !== "" && requirements.affinityRunnerId !== runner.runnerId) {
    reasons.push(`does not hold the session's files, ${requirements.affinityRunnerId} does`);
  }
  const differs = (what: string, wanted: string, has: string): void => {
    if (wanted !== "" && wanted !== has) reasons.push(`has ${what} ${has}, not ${wanted}`);
  };
  differs("executor profile", requirements.executorProfile, runner.executorProfile);
  differs("hostname", requirements.hostname, runner.hostname);
  differs("project_dir", requirements.projectDir, runner.projectDir);
  const unable = requirements.needs.filter((need) => !runner.capabilities.includes(need));
  if (unable.length > 0) reasons.push(`cannot do what the agent needs (${unable.join(", ")}); a newer runner can`);
  const missing = requirements.tags.filter((tag) => !runner.tags.includes(tag));
  if (missing.length > 0) reasons.push(`lacks ${missing.length === 1 ? "tag" : "tags"} ${missing.join(", ")}`);
  if (runner.requireMatchingTags && !requirements.tags.some((tag) => runner.tags.includes(tag))) {
    reasons.push(`takes only runs that name one of its tags (${runner.tags.join(", ") || "it has none"})`);
  }
  return reasons;
}

function delays(runner: RunnerFacts): string[] {
  if (runner.presence === "AWAY") return ["is away"];
  if (runner.presence === "NO_STREAM") return ["is reconnecting"];
  if (runner.presence === "UNCONFIRMED")
    return ["has not said that its stream arrives (a proxy on the way may keep it back)"];
  if (runner.draining) return ["is draining"];
  if (runner.activeRuns >= runner.maxRuns) return [`is full ${runner.activeRuns}/${runner.maxRuns}`];
  if (runner.freeSlots <= 0) return [`takes no more for now, at ${runner.activeRuns}/${runner.maxRuns}`];
  return [];
}

/** Most runners that an explanation names. */
const MAX_NAMED = 20;

/**
 * Why a pending run is pending, for people: a head line, then one line a runner, at most 20. The same text reaches GetRun,
 * the command line and the log.
 */
export function explain(runners: readonly RunnerFacts[], requirements: Requirements): string[] {
  if (runners.length === 0) return ["no runner is registered"];
  const lines = runners.map((runner) => {
    const { never, notNow } = match(runner, requirements);
    return { runner, never, notNow };
  });
  const possible = lines.filter((line) => line.never.length === 0);
  const plural = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? "" : "s"}`;
  const count = plural(runners.length, "runner");
  const head =
    possible.length === 0
      ? `no runner matches: ${count}`
      : possible.some((line) => line.notNow.length === 0)
        ? OFFER_UNDER_WAY
        : `waits for a runner: ${possible.length} of ${count} could take it`;
  const shown = [...possible, ...lines.filter((line) => line.never.length > 0)].slice(0, MAX_NAMED);
  const reasons = shown
    .map(({ runner, never, notNow }) => ({ id: runner.runnerId, why: never.length > 0 ? never : notNow }))
    .filter(({ why }) => why.length > 0)
    .map(({ id, why }) => `${id} ${why.join(" and ")}`);
  const hidden = lines.length - shown.length;
  return [
    head,
    ...reasons,
    ...(hidden > 0 ? [`and ${plural(hidden, "more runner")}`] : []),
    ...wayOut(runners, requirements),
  ];
}

/** What to do when only the files of the session bind a run to a runner that is not there. */
function wayOut(runners: readonly RunnerFacts[], { affinityRunnerId }: Requirements): string[] {
  const there: readonly RunnerFacts["presence"][] = ["ONLINE", "UNCONFIRMED"];
  const isThere = runners.some((one) => one.runnerId === affinityRunnerId && there.includes(one.presence));
  if (affinityRunnerId === "" || isThere) return [];
  return [
    `the session's files are with ${affinityRunnerId}: bring it back, or stop this run and go on without them: ` +
      "ao resume SESSION --any-runner",
  ];
}

/** Names what a run asks for: runs with the same key can be taken by the same runners. */
export function demandClass(requirements: Requirements): string {
  const { executorProfile, hostname, projectDir, tags, affinityRunnerId, needs } = requirements;
  const asked = [executorProfile, hostname, projectDir, [...tags].toSorted(), affinityRunnerId];
  // Few need anything: the others have the names that they have in older stores.
  return JSON.stringify(needs.length === 0 ? asked : [...asked, [...needs].toSorted()]);
}

/** Inverse of `demandClass`. */
export function requirementsOf(demandClass: string): Requirements {
  const [executorProfile, hostname, projectDir, tags, affinityRunnerId, needs = []] = JSON.parse(demandClass) as [
    string,
    string,
    string,
    string[],
    string,
    string[]?,
  ];
  return { executorProfile, hostname, projectDir, tags, affinityRunnerId, needs };
}
