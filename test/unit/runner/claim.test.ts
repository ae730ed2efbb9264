import { describe, expect, it } from "vitest";
import { claimOf } from "../../../runner/leases/claim.ts";
import type { Place } from "../../../runner/leases/claim.ts";

const here: Place = { machineId: "m", machineBootId: "b", path: "/state", dev: "1", ino: "2" };
const claim = (recorded: Partial<Place>, isThere = false, now: Partial<Place> = {}) =>
  claimOf({ ...here, ...recorded }, { ...here, ...now }, () => isThere);

describe("a state directory", () => {
  it("is that of the process before it where it stands as it was left, also under another path", () => {
    expect(claim({})).toEqual({ type: "proven" });
    expect(claim({ path: "/before" }, true)).toEqual({ type: "proven" });
  });

  it("of a version that recorded no place is trusted until the machine is started again", () => {
    const unknown = { machineId: "", path: "", dev: "", ino: "" };
    expect(claim(unknown)).toEqual({ type: "proven" });
    expect(claim({ ...unknown, machineBootId: "" })).toEqual({ type: "proven" });
    expect(claim({ ...unknown, machineBootId: "other" })).toMatchObject({ type: "unproven" });
  });

  it("is a copy when its original is still there", () => {
    expect(claim({ path: "/original", ino: "3" }, true)).toEqual({ type: "copy", original: "/original" });
    expect(claim({ path: "/original", dev: "3" }, true)).toEqual({ type: "copy", original: "/original" });
  });

  it.each([
    ["a copy whose original is gone", { ino: "3" }, /moved, copied or restored from \/state/],
    ["of another machine", { machineId: "other" }, /another machine/],
    ["of the clone of a machine, or of one that was started again", { machineBootId: "other" }, /started again/],
    ["of another machine with the same numbers", { machineId: "other", machineBootId: "other" }, /another machine/],
  ])("may be a copy: %s", (_, recorded, why) => {
    expect(claim(recorded)).toEqual({ type: "unproven", why: expect.stringMatching(why) as string });
  });

  it("is not doubted for what one of the two systems does not tell", () => {
    expect(claim({ machineId: "other" }, false, { machineId: "" })).toEqual({ type: "proven" });
    expect(claim({ machineBootId: "" }, false, { machineBootId: "b" })).toEqual({ type: "proven" });
  });
});
