import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { newId, newToken, runnerId, tokenHash } from "../../../lib/ids.ts";
import type { IdPrefix, RunnerIdentity } from "../../../lib/ids.ts";

const IDENTITY: RunnerIdentity = {
  hostname: "devbox",
  projectDir: "/home/ada/project",
  executorProfile: "claude-code",
  name: "",
};

describe("runnerId", () => {
  // sha256 of ["devbox","/home/ada/project","claude-code"] and of the same with "second", by another program.
  it("is what any language computes from the same identity", () => {
    expect(runnerId(IDENTITY)).toBe("lnch_356b7dc3f36c");
    expect(runnerId({ ...IDENTITY, name: "second" })).toBe("lnch_9b1b40bcdb50");
  });

  it("reads texts beyond ASCII as UTF-8", () => {
    const text = '["büro","/home/ada/项目","claude-code"]';
    const digest = createHash("sha256").update(Buffer.from(text, "utf8")).digest("hex");
    expect(runnerId({ ...IDENTITY, hostname: "büro", projectDir: "/home/ada/项目" })).toBe(
      `lnch_${digest.slice(0, 12)}`,
    );
  });

  it("differs when any part differs, also where parts joined by a separator would not", () => {
    const identities: RunnerIdentity[] = [
      IDENTITY,
      { ...IDENTITY, hostname: "devbox2" },
      { ...IDENTITY, projectDir: "/home/ada" },
      { ...IDENTITY, executorProfile: "test" },
      { ...IDENTITY, name: "second" },
      { ...IDENTITY, executorProfile: "second", name: "claude-code" },
      { ...IDENTITY, hostname: "devbox:/home", projectDir: "ada/project" },
      { ...IDENTITY, hostname: "devbox", projectDir: "/home:ada/project" },
      { ...IDENTITY, executorProfile: 'claude-code","second' },
      { ...IDENTITY, executorProfile: "claude-code,second" },
      { ...IDENTITY, hostname: "", projectDir: 'devbox","/home/ada/project' },
    ];
    expect(new Set(identities.map(runnerId)).size).toBe(identities.length);
  });
});

describe("made-up ids", () => {
  it.each<IdPrefix>(["run", "ses", "lease", "boot", "stream", "store"])(
    "of a %s carry its prefix and are new",
    (prefix) => {
      const ids = Array.from({ length: 1_000 }, () => newId(prefix));
      for (const id of ids) expect(id).toMatch(new RegExp(`^${prefix}_[0-9a-f]{28}$`));
      expect(new Set(ids).size).toBe(1_000);
    },
  );

  it("sort by the millisecond in which they were made", () => {
    const before = Date.now().toString(16).padStart(12, "0");
    const id = newId("run");
    expect(id.slice("run_".length, "run_".length + 12) >= before).toBe(true);
  });

  it("fit the 64 characters that the protocol gives an id", () => {
    expect(newId("stream").length).toBeLessThanOrEqual(64);
  });
});

describe("tokens", () => {
  it("carry 256 random bits and are stored as their SHA-256", () => {
    const token = newToken("rt");
    expect(token).toMatch(/^rt_[0-9a-f]{64}$/);
    expect(newToken("rt")).not.toBe(token);
    expect(newToken("lt")).toMatch(/^lt_/);
    expect(tokenHash("rt_abc")).toBe("069d93dc853db1a9c58a1b4ee4bbb256fe68981275e4c98518f241b370461633");
    expect(tokenHash(token)).not.toContain(token.slice(3));
  });
});
