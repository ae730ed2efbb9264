import { expect, it } from "vitest";
import { Versions } from "../../../coordinator/dispatch/versions.ts";

it("knows what changed after a moment and what did not", () => {
  const versions = new Versions();
  versions.changed("a");
  versions.changed("b");
  const asked = versions.moment;
  expect(versions.unchangedSince(asked, "a")).toBe(true);
  versions.changed("a");
  expect(versions.unchangedSince(asked, "a")).toBe(false);
  expect(versions.unchangedSince(asked, "b")).toBe(true);
  expect(versions.unchangedSince(versions.moment, "a")).toBe(true);
});

it("believes nothing about what it does not know", () => {
  const versions = new Versions();
  expect(versions.unchangedSince(versions.moment, "a")).toBe(false);
  versions.changed("a");
  versions.forget("a");
  expect(versions.unchangedSince(versions.moment, "a")).toBe(false);
});

it("takes what went and came back for changed", () => {
  const versions = new Versions();
  versions.changed("a");
  const asked = versions.moment;
  versions.forget("a");
  versions.changed("a");
  expect(versions.unchangedSince(asked, "a")).toBe(false);
});

it("refuses a moment that it did not give", () => {
  const [one, other] = [new Versions(), new Versions()];
  one.changed("a");
  expect(() => other.unchangedSince(one.moment, "a")).toThrow("a moment of another counter");
});
