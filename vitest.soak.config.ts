import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/soak/**/*.test.ts"],
    // Of a soak of any length: the test itself ends by SOAK_MINUTES.
    testTimeout: 0,
    hookTimeout: 60_000,
    maxWorkers: 1,
    pool: "forks",
  },
});
