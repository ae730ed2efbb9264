import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/chaos/**", "test/soak/**"],
    // Only says when a test gives up; see test/support/until.ts.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Tests start real servers and real processes; two files at a time is what two cores carry.
    maxWorkers: 2,
    pool: "forks",
  },
});
