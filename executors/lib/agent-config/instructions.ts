import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileProblem } from "../../../lib/config/file-problem.ts";
import { NotText, utf8Text } from "../../../lib/text.ts";
import { INHERIT } from "./config-stack.ts";
import type { ConfigData } from "./config-stack.ts";
import { CONTAINER_PATHS } from "./container-paths.ts";
import type { ContainerPaths } from "./container-paths.ts";
import type { Diagnostic } from "./diagnostics.ts";
import { resolveProviderValue } from "./provider-config.ts";

/** What an agent is told that nobody has told anything. */
export const NEUTRAL_INSTRUCTIONS = "Follow the project's coding conventions and existing patterns.";

const FILE = "instructions.md";

/** What an agent should know of its container: where the checkout is, what it may do, how it says where it is. */
export function bundledDefaultInstructions(paths: ContainerPaths = CONTAINER_PATHS): string {
  const text = readFileSync(new URL("./container-instructions.md", import.meta.url), "utf8");
  return text.replaceAll(/\$\{(workspace|home|config)\}/g, (_, name: "workspace" | "home" | "config") => paths[name]);
}

export interface InstructionsOptions {
  /** Its `instructions.md` is put below the others. */
  readonly projectRoot?: string | undefined;
  readonly paths?: ContainerPaths;
  /** Takes what is said of a file that cannot be read. */
  readonly diagnostics?: Diagnostic[];
}

/**
 * Instructions of a merged configuration for a provider. Its key `instructions` is a text; a list, joined by empty lines,
 * in which `_inherit` stands for the bundled text; or a map of these by provider, with `_default` for the others. Nothing
 * is the bundled text. The project's own file is always put below.
 */
export function resolveInstructions(
  config: ConfigData,
  providerName: string,
  options: InstructionsOptions = {},
): string {
  const value = resolveProviderValue("instructions", config, providerName);
  const base = textOf(value, () => bundledDefaultInstructions(options.paths));
  const own = projectInstructions(options);
  return [base, own].filter((part) => part !== "").join("\n\n");
}

function textOf(value: unknown, bundled: () => string): string {
  if (value === undefined || value === null || value === INHERIT) return bundled();
  if (!Array.isArray(value)) return asText(value);
  return value.map((part: unknown) => (part === INHERIT ? bundled() : asText(part))).join("\n\n");
}

/** Numbers and the like stand as they are written. */
function asText(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}

/** True when the configuration has instructions, or the project a file of them, be they empty. */
export function hasCustomInstructions(config: ConfigData, projectRoot?: string): boolean {
  const value = config["instructions"];
  if (value !== undefined && value !== null) return true;
  return projectRoot !== undefined && statSync(join(projectRoot, FILE), { throwIfNoEntry: false })?.isFile() === true;
}

function projectInstructions({ projectRoot, diagnostics }: InstructionsOptions): string {
  if (projectRoot === undefined) return "";
  const file = join(projectRoot, FILE);
  try {
    if (statSync(file, { throwIfNoEntry: false })?.isFile() !== true) return "";
    return utf8Text(readFileSync(file)).trim();
  } catch (error) {
    const why = error instanceof NotText ? error.message : fileProblem(error, file);
    diagnostics?.push({ code: "instructions-unreadable", severity: "warning", message: `${why}: not used`, file });
    return "";
  }
}
