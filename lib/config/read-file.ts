import { readFileSync } from "node:fs";
import type { ReadFile } from "./config.ts";

/** Text of a file; undefined when it is not there. Throws Node's error otherwise. */
export const readFileIfThere: ReadFile = (path) => {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
};
