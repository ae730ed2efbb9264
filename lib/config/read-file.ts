import { readFileSync } from "node:fs";
import { NotText, utf8Text } from "../text.ts";
import { UsageError } from "./config.ts";
import { mustBeReadable, NotAFileError } from "./file-kind.ts";
import type { ReadFile } from "./config.ts";

/** Text of a file; undefined when it is not there. Throws UsageError for what is no text, and Node's error otherwise. */
export const readFileIfThere: ReadFile = (path) => {
  try {
    mustBeReadable(path);
    return utf8Text(readFileSync(path));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    if (error instanceof NotAFileError) throw new UsageError(`${path} cannot be read: ${error.message}`);
    if (error instanceof NotText) throw new UsageError(`${path} ${error.message}`);
    throw error;
  }
};
