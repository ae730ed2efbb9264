import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileErrorText, isFileError } from "../../lib/config/file-problem.ts";
import { inPackage } from "../../lib/package-root.ts";
import type { Cli, Outcome } from "../cli.ts";
import { usage } from "../errors.ts";

/** Languages that an executor can be begun in. */
export const LANGUAGES = ["bash", "python", "typescript"] as const;

export interface InitOptions {
  readonly language: (typeof LANGUAGES)[number];
  /** Folder of executors. */
  readonly dir: string;
}

/** By language, the files of an executor: a template in `executors/templates`, and what it is called with that name. */
const FILES: Readonly<Record<InitOptions["language"], readonly { readonly from: string; readonly to: string }[]>> = {
  bash: [{ from: "executor", to: "ao-__NAME__-exec" }],
  python: [{ from: "executor", to: "ao-__NAME__-exec" }],
  typescript: [
    { from: "executor", to: "ao-__NAME__-exec" },
    { from: "executor.mts", to: "__NAME__.mts" },
  ],
};

/** `ao executors init`: writes an executor that keeps the contract. Nothing that is there is written over. */
export async function init(cli: Cli, name: string, { language, dir }: InitOptions): Outcome {
  checkName(name);
  const folder = join(dir, name);
  if (existsSync(folder)) throw usage(`${folder} exists already`, "give another name, or another folder with --dir");
  const files = FILES[language].map(({ from, to }) => ({
    path: join(folder, named(to, name)),
    text: named(readFileSync(inPackage(`executors/templates/${language}/${from}`), "utf8"), name),
    mode: from === "executor" ? 0o755 : 0o644,
  }));
  write(folder, files);
  const paths = files.map(({ path }) => path);
  const [program = ""] = paths;
  switch (cli.options.output) {
    case "text":
      for (const path of paths) cli.print(path);
      break;
    case "name":
      cli.print(name);
      break;
    default:
      cli.printJson({ name, language, path: program, files: paths });
  }
  cli.say(
    `\`ao executors check ${shownPath(program)}\` checks it; \`ao dev -x ${name} --executors-dir ${dir}\` runs it`,
  );
}

function checkName(name: string): void {
  if (/^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$/.test(name)) return;
  throw usage(`"${name}" is no name of an executor: small letters, digits and -, at most 64`, "such as my-agent");
}

function write(folder: string, files: readonly { path: string; text: string; mode: number }[]): void {
  try {
    mkdirSync(folder, { recursive: true });
    for (const { path, text, mode } of files) writeFileSync(path, text, { mode, flag: "wx" });
  } catch (error) {
    if (isFileError(error)) throw usage(fileErrorText(error));
    throw error;
  }
}

function named(text: string, name: string): string {
  return text.replaceAll("__NAME__", name);
}

/** With a slash, so that it is taken for a path. */
function shownPath(path: string): string {
  return path.includes("/") ? path : `./${relative(".", path)}`;
}
