import { readFileSync } from "node:fs";
import { NotText, utf8Text } from "../text.ts";
import { UsageError } from "./config.ts";
import type { ReadFile } from "./config.ts";

/** Text of a file; undefined when it is not there. Throws UsageError for what is no text, and Node's error otherwise. */
export const readFileIfThere: ReadFile = (path) => {
  try {
    return utf8Text(readFileSync(path));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    if (error instanceof NotText) throw new UsageError(`${path} ${error.message}`);
    throw error;
  }
};
