import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { demandClass, explain, match, suits, requirementsOf } from "../../../coordinator/core/match.ts";
import type { Mismatch, RunnerFacts, Requirements } from "../../../coordinator/core/match.ts";

const ANYTHING: Requirements = {
  executorProfile: "",
  hostname: "",
  projectDir: "",
  tags: [],
  affinityRunnerId: "",
  needs: [],
};

function aRunner(over: Partial<RunnerFacts> = {}): RunnerFacts {
  return {
    runnerId: "lnch_a",
    hostname: "devbox",
    projectDir: "/home/ada/project",
    executorProfile: "coding",
    tags: ["python", "docker"],
    requireMatchingTags: false,
    capabilities: [],
    maxRuns: 2,
    activeRuns: 0,
    freeSlots: 2,
    draining: false,
    presence: "ONLINE",
    ...over,
  };
}

const FULL = { activeRuns: 2, freeSlots: 0 } as const;
const never = (...reasons: string[]): Mismatch => ({ never: reasons, notNow: [] });
const notNow = (...reasons: string[]): Mismatch => ({ never: [], notNow: reasons });

describe("match", () => {
  // The table of ADR 10, word for word.
  it.each([
    { runner: ["python", "docker"], run: ["python"], require_matching_tags: true, result: "Match" },
    { runner: ["python", "docker"], run: ["nodejs"], require_matching_tags: true, result: "No match" },
    { runner: ["python", "docker"], run: [], require_matching_tags: true, result: "Rejected" },
    { runner: ["python", "docker"], run: [], require_matching_tags: false, result: "Accepted" },
  ])("of runner tags $runner and run tags $run under $require_matching_tags is: $result", (row) => {
    const runner = aRunner({ tags: row.runner, requireMatchingTags: row.require_matching_tags });
    const possible = row.result === "Match" || row.result === "Accepted";
    expect(suits(runner, { ...ANYTHING, tags: row.run })).toBe(possible);
    expect(match(runner, { ...ANYTHING, tags: row.run }).never.length === 0).toBe(possible);
  });

  it.each<[string, Partial<RunnerFacts>, Partial<Requirements>, Mismatch]>([
    ["a run that asks for nothing", {}, {}, never()],
    ["the profile that it has", {}, { executorProfile: "coding" }, never()],
    ["another profile", {}, { executorProfile: "review" }, never("has executor profile coding, not review")],
    ["the host that it is on", {}, { hostname: "devbox" }, never()],
    ["another host", {}, { hostname: "gpubox" }, never("has hostname devbox, not gpubox")],
    ["its directory", {}, { projectDir: "/home/ada/project" }, never()],
    ["a directory below", {}, { projectDir: "/home/ada" }, never("has project_dir /home/ada/project, not /home/ada")],
    ["one of its tags", {}, { tags: ["docker"] }, never()],
    ["all of its tags in another order", {}, { tags: ["docker", "python"] }, never()],
    ["a tag more", {}, { tags: ["docker", "gpu"] }, never("lacks tag gpu")],
    ["two tags more", {}, { tags: ["gpu", "docker", "arm"] }, never("lacks tags gpu, arm")],
    ["what it can do", { capabilities: ["hooks"] }, { needs: ["hooks"] }, never()],
    [
      "what it cannot do",
      {},
      { needs: ["hooks"] },
      never("cannot do what the agent needs (hooks); a newer runner can"),
    ],
    ["a tag in other letters", {}, { tags: ["Docker"] }, never("lacks tag Docker")],
    [
      "no tag, when it takes tagged runs only",
      { requireMatchingTags: true },
      {},
      never("takes only runs that name one of its tags (python, docker)"),
    ],
    [
      "a foreign tag, when it takes tagged runs only",
      { requireMatchingTags: true },
      { tags: ["gpu"] },
      never("lacks tag gpu", "takes only runs that name one of its tags (python, docker)"),
    ],
    [
      "one tag of its own and one more, when it takes tagged runs only",
      { requireMatchingTags: true },
      { tags: ["python", "gpu"] },
      never("lacks tag gpu"),
    ],
    [
      "anything, when it takes tagged runs only and has no tag",
      { requireMatchingTags: true, tags: [] },
      {},
      never("takes only runs that name one of its tags (it has none)"),
    ],
    ["a session that it holds", {}, { affinityRunnerId: "lnch_a" }, never()],
    [
      "a session of another runner",
      {},
      { affinityRunnerId: "lnch_b" },
      never("does not hold the session's files, lnch_b does"),
    ],
    ["anything, when full", FULL, {}, notNow("is full 2/2")],
    ["anything, when it keeps its slots to itself", { freeSlots: 0 }, {}, notNow("takes no more for now, at 0/2")],
    ["anything, with one slot left", { activeRuns: 1, freeSlots: 1 }, {}, notNow()],
    ["anything, when draining", { draining: true }, {}, notNow("is draining")],
    ["anything, when away", { presence: "AWAY" }, {}, notNow("is away")],
    ["anything, without a stream", { presence: "NO_STREAM" }, {}, notNow("is reconnecting")],
    [
      "anything, when away, draining and full: the first reason to go",
      { ...FULL, presence: "AWAY", draining: true },
      {},
      notNow("is away"),
    ],
    [
      "what it has not, when full: both kinds of reason",
      FULL,
      { executorProfile: "review", hostname: "gpubox" },
      {
        never: ["has executor profile coding, not review", "has hostname devbox, not gpubox"],
        notNow: ["is full 2/2"],
      },
    ],
  ])("of a runner and %s gives its reasons", (_, runner, requirements, reasons) => {
    expect(match(aRunner(runner), { ...ANYTHING, ...requirements })).toEqual(reasons);
    expect(suits(aRunner(runner), { ...ANYTHING, ...requirements })).toBe(reasons.never.length === 0);
  });
});

describe("explain", () => {
  const docker: Requirements = { ...ANYTHING, tags: ["docker"] };

  it("says that nobody is there", () => {
    expect(explain([], docker)).toEqual(["no runner is registered"]);
  });

  it("says that nobody will do, and why for each", () => {
    const bare = aRunner({ tags: [], ...FULL });
    expect(explain([bare], docker)).toEqual(["no runner matches: 1 runner", "lnch_a lacks tag docker"]);
    expect(explain([bare, aRunner({ runnerId: "lnch_b", tags: ["gpu"] })], { ...docker, hostname: "x" })).toEqual([
      "no runner matches: 2 runners",
      "lnch_a has hostname devbox, not x and lacks tag docker",
      "lnch_b has hostname devbox, not x and lacks tag docker",
    ]);
  });

  it("names first those that will do later, and then those that never will", () => {
    const runners = [aRunner({ tags: [] }), aRunner({ runnerId: "lnch_b", ...FULL })];
    expect(explain(runners, docker)).toEqual([
      "waits for a runner: 1 of 2 runners could take it",
      "lnch_b is full 2/2",
      "lnch_a lacks tag docker",
    ]);
  });

  it("says that a runner is there and the offer is not made yet", () => {
    expect(explain([aRunner(), aRunner({ runnerId: "lnch_b", draining: true })], docker)).toEqual([
      "a runner matches; the offer is on its way, or waits out a cooldown after a refusal",
      "lnch_b is draining",
    ]);
  });

  it("names 20 runners at most, and counts the rest", () => {
    const fleet = (size: number): RunnerFacts[] =>
      Array.from({ length: size }, (_, i) => aRunner({ runnerId: `lnch_${i}`, tags: [] }));
    expect(explain(fleet(20), docker)).toHaveLength(21);
    expect(explain(fleet(21), docker).slice(20)).toEqual(["lnch_19 lacks tag docker", "and 1 more runner"]);
    expect(explain(fleet(5_000), docker)).toHaveLength(22);
    expect(explain(fleet(5_000), docker).at(-1)).toBe("and 4980 more runners");
    const lateComer = [...fleet(30), aRunner({ runnerId: "lnch_full", ...FULL })];
    expect(explain(lateComer, docker)[1]).toBe("lnch_full is full 2/2");
  });
});

describe("demandClass", () => {
  const text = fc.string({ unit: "binary", maxLength: 12 });
  const requirements: fc.Arbitrary<Requirements> = fc.record({
    executorProfile: text,
    hostname: text,
    projectDir: text,
    tags: fc.array(text, { maxLength: 5 }),
    affinityRunnerId: text,
    needs: fc.array(text, { maxLength: 2 }).map((needs) => needs.toSorted()),
  });

  it("is the same for the same demands, in whatever order the tags are named, and is undone by requirementsOf", () => {
    fc.assert(
      fc.property(requirements, (requirements) => {
        const shuffled = { ...requirements, tags: requirements.tags.toReversed() };
        expect(demandClass(shuffled)).toBe(demandClass(requirements));
        expect(requirementsOf(demandClass(requirements))).toEqual({
          ...requirements,
          tags: requirements.tags.toSorted(),
        });
        expect(demandClass(requirementsOf(demandClass(requirements)))).toBe(demandClass(requirements));
      }),
      { numRuns: 1_000 },
    );
  });

  it("differs when any demand differs, also where joined texts would not", () => {
    const classes = [
      ANYTHING,
      { ...ANYTHING, executorProfile: "a" },
      { ...ANYTHING, hostname: "a" },
      { ...ANYTHING, projectDir: "a" },
      { ...ANYTHING, affinityRunnerId: "a" },
      { ...ANYTHING, tags: ["a"] },
      { ...ANYTHING, tags: ["a", "b"] },
      { ...ANYTHING, tags: ["a,b"] },
      { ...ANYTHING, tags: ['a","b'] },
      { ...ANYTHING, executorProfile: '","a' },
    ].map(demandClass);
    expect(new Set(classes).size).toBe(classes.length);
  });

  it("leaves the demands that it was given as they are", () => {
    const tags = Object.freeze(["b", "a"]);
    demandClass({ ...ANYTHING, tags });
    expect(tags).toEqual(["b", "a"]);
  });
});
