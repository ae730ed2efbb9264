import {
  accessSync,
  closeSync,
  constants,
  copyFileSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
} from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { fileProblem } from "../../../lib/config/file-problem.ts";
import { NotText, utf8Text } from "../../../lib/text.ts";
import { configError } from "./diagnostics.ts";
import type { Diagnostic } from "./diagnostics.ts";
import type { JsonEdited } from "./json-edit.ts";
import { moveIntoPlace, writeAside } from "./write-aside.ts";

/** A file of the configuration that all tasks share, and what becomes of its text. */
export interface SharedEdit {
  /** Below `mountsBase`. */
  readonly file: string;
  /** The text is undefined when there is no file. */
  readonly edit: (text: string | undefined) => JsonEdited;
}

/** What an edit would do now. */
export interface SharedPlan {
  readonly path: string;
  readonly before: string | undefined;
  readonly after: string;
  readonly mode: number;
  /** What of the old file is not in the new one. */
  readonly diagnostics: readonly Diagnostic[];
  /** The old file is to be kept beside the new one. */
  readonly keepOld: boolean;
}

export interface SharedResult {
  readonly path: string;
  readonly changed: boolean;
  /** Copy of the old file, when something of it was lost. */
  readonly backup?: string;
}

/** Larger than every configuration that somebody has written. */
const MAX_BYTES = 4 * 1024 * 1024;

interface Found {
  readonly text: string | undefined;
  readonly mode: number;
  /** Why the text is not the file's. */
  readonly unread?: { readonly code: "shared-file-replaced" | "shared-link-replaced"; readonly message: string };
}

/**
 * Reads the file and says what would be written, without writing anything.
 * @throws AgentConfigError when it cannot be read or its folder cannot be written.
 */
export function planShared(mountsBase: string, { file, edit }: SharedEdit): SharedPlan {
  const path = join(mountsBase, file);
  checkFolders(mountsBase, path);
  try {
    const { text, mode, unread } = read(path);
    const { text: after, lost } = edit(text);
    const said = unread === undefined ? lost : [unread, ...lost];
    const diagnostics = said.map(({ code, message }): Diagnostic => {
      const what = code === "shared-value-replaced" ? "that is replaced" : "the file is replaced";
      return { code, severity: "warning", message: `${message}: ${what}`, file: path };
    });
    const keepOld = said.some(({ code }) => code !== "shared-link-replaced");
    return { path, before: unread === undefined ? text : undefined, after, mode, diagnostics, keepOld };
  } catch (error) {
    if (error instanceof Error && "diagnostics" in error) {
      throw configError("shared-file-unusable", error.message, { file: path });
    }
    throw configError("shared-file-unusable", fileProblem(error, path), { file: path });
  }
}

/** Writes what was planned, unless it stands there already. Under the lock. */
export function applyShared(plan: SharedPlan): SharedResult {
  const { path, before, after, mode } = plan;
  if (before === after) return { path, changed: false };
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const aside = writeAside(path, after, mode);
  const backup = plan.keepOld ? `${path}.bak-${new Date().toISOString().replaceAll(/[:.]/g, "-")}` : undefined;
  if (backup !== undefined) copyFileSync(path, backup);
  moveIntoPlace(aside);
  return { path, changed: true, ...(backup === undefined ? {} : { backup }) };
}

function read(path: string): Found {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return { text: undefined, mode: 0o600 };
  if (stats.isSymbolicLink()) {
    // A container may have put it there, to have a file of the host read or written.
    const message = "is a symbolic link, which is not followed";
    return { text: undefined, mode: 0o600, unread: { code: "shared-link-replaced", message } };
  }
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const { mode, size } = fstatSync(fd);
    if (!fstatSync(fd).isFile()) throw new Error("is no regular file: take it away");
    if (size > MAX_BYTES) throw new Error(`has ${size} bytes: a configuration may have ${MAX_BYTES}`);
    return { text: utf8Text(readFileSync(fd)), mode: mode & 0o777 };
  } catch (error) {
    if (!(error instanceof NotText)) throw error;
    const { mode } = fstatSync(fd);
    return { text: undefined, mode: mode & 0o777, unread: { code: "shared-file-replaced", message: error.message } };
  } finally {
    closeSync(fd);
  }
}

/**
 * The folders down to the file are folders that can be written, as far as they exist. The first below `mountsBase` may be
 * a link of the person who set it up; what is below that one a container can write.
 */
function checkFolders(mountsBase: string, path: string): void {
  const parts = relative(mountsBase, dirname(path)).split(sep);
  let folder = mountsBase;
  for (const [depth, part] of parts.entries()) {
    folder = join(folder, part);
    const stats = lstatSync(folder, { throwIfNoEntry: false });
    if (stats === undefined) return;
    if (stats.isSymbolicLink() && depth > 0) {
      throw configError("unsafe-path", "is a symbolic link, which is not followed: make it a folder", { file: folder });
    }
    if (!stats.isDirectory() && !stats.isSymbolicLink()) {
      throw configError("shared-file-unusable", "is not a folder: take it away", { file: folder });
    }
  }
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch (error) {
    const hint = `make it yours: sudo chown -R "$(id -un)" ${folder}`;
    throw configError("shared-file-unusable", `${fileProblem(error, folder)}; ${hint}`, { file: folder });
  }
}
