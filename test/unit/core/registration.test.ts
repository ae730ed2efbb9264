import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { keepsId, registration } from "../../../coordinator/core/registration.ts";
import { freeSlots, cooldownMs, withheldSlots } from "../../../coordinator/core/capacity.ts";
import { protocolVersion } from "../../../lib/protocol/version.ts";
import type { RegistrationKind } from "../../../coordinator/core/registration.ts";

describe("registration", () => {
  it("gives an identity that nobody has to whoever asks", () => {
    expect(registration(undefined, { bootId: "boot_2", previousBootId: "" })).toBe("NEW");
    expect(registration(undefined, { bootId: "boot_2", previousBootId: "boot_1" })).toBe("NEW");
  });

  it.each<[string, boolean, { bootId: string; previousBootId: string }, RegistrationKind]>([
    ["the same process, while live", true, { bootId: "boot_1", previousBootId: "" }, "SAME"],
    ["the same process, after silence", false, { bootId: "boot_1", previousBootId: "" }, "SAME"],
    ["its successor, while it looks live", true, { bootId: "boot_2", previousBootId: "boot_1" }, "REPLACE"],
    ["its successor, after silence", false, { bootId: "boot_2", previousBootId: "boot_1" }, "REPLACE"],
    ["a stranger, while it is live", true, { bootId: "boot_2", previousBootId: "" }, "TWIN"],
    ["a stranger, after silence", false, { bootId: "boot_2", previousBootId: "" }, "REPLACE"],
    [
      "the successor of an earlier process, while it is live",
      true,
      { bootId: "boot_3", previousBootId: "boot_0" },
      "TWIN",
    ],
    ["the same process naming its own predecessor", true, { bootId: "boot_1", previousBootId: "boot_0" }, "SAME"],
  ])("of %s", (_, live, newcomer, kind) => {
    expect(registration({ bootId: "boot_1", live }, newcomer)).toBe(kind);
  });
});

describe("a runner that remembers its id", () => {
  const place = { projectDir: "/srv/app", executorProfile: "claude-code", name: "blue" };

  it("keeps it when nobody has it, and when one in the same place has it", () => {
    expect(keepsId(undefined, place)).toBe(true);
    expect(keepsId({ ...place }, place)).toBe(true);
  });

  it.each([{ projectDir: "/srv/copy" }, { executorProfile: "codex" }, { name: "" }])(
    "does not keep it when one with another place has it: %o",
    (other) => {
      expect(keepsId({ ...place, ...other }, place)).toBe(false);
      expect(keepsId(place, { ...place, ...other })).toBe(false);
    },
  );
});

describe("protocolVersion", () => {
  it.each([
    [1, 1, 1],
    [0, 0, 1],
    [0, 1, 1],
    [1, 9, 1],
    [2, 9, undefined],
    [2, 0, undefined],
    [2, 1, undefined],
  ])("of a runner that speaks %i to %i is %s", (min, max, version) => {
    expect(protocolVersion(min, max)).toBe(version);
  });
});

describe("cooldownMs", () => {
  it("doubles from one second with every refusal, up to a minute", () => {
    expect([1, 2, 3, 4, 5, 6, 7, 8].map(cooldownMs)).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
    expect(cooldownMs(100_000)).toBe(60_000);
  });
});

describe("free slots", () => {
  it.each([
    [4, 0, undefined, 4],
    [4, 1, undefined, 3],
    [4, 4, undefined, 0],
    [4, 1, 3, 3],
    [4, 1, 1, 1],
    [4, 1, 0, 0],
    [4, 1, 9, 3],
    [4, 5, 4, 0],
  ])("of %i, of which %i are counted and %s reported, are %i", (maxRuns, activeRuns, reported, free) => {
    expect(freeSlots(maxRuns, activeRuns, withheldSlots(maxRuns, activeRuns, reported))).toBe(free);
  });

  it("are never more than the coordinator counts, whatever is reported, and never less than none", () => {
    const count = fc.nat(1_000);
    fc.assert(
      fc.property(
        count,
        count,
        count,
        count,
        fc.option(count, { nil: undefined }),
        (max, then, now, slots, reported) => {
          const free = freeSlots(max, now, withheldSlots(max, then, reported));
          expect(free).toBeGreaterThanOrEqual(0);
          expect(free).toBeLessThanOrEqual(Math.max(0, max - now));
          expect(freeSlots(max, then, withheldSlots(max, then, slots))).toBeLessThanOrEqual(slots);
        },
      ),
      { numRuns: 1_000 },
    );
  });
});
