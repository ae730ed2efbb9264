import type { Command } from "commander";
import { nearNames } from "../lib/near-names.ts";
import type { CliError } from "./errors.ts";
import { usage } from "./errors.ts";
import { pathOf } from "./verbs/command-path.ts";

/** What other programs call what `ao` calls something else. The first that a group has is meant. */
const SYNONYMS: Readonly<Record<string, readonly string[]>> = {
  attach: ["logs -f"],
  cancel: ["stop"],
  continue: ["resume"],
  delete: ["rm", "prune", "sessions rm"],
  describe: ["get"],
  exec: ["start"],
  info: ["get"],
  inspect: ["get"],
  kill: ["stop"],
  list: ["ls", "ps"],
  log: ["logs"],
  new: ["create", "start"],
  output: ["logs", "result"],
  remove: ["rm", "prune", "sessions rm"],
  rm: ["prune", "sessions rm"],
  run: ["start"],
  show: ["get"],
  status: ["get"],
  tail: ["logs -f", "events -f"],
  version: ["--version"],
};

/**
 * Makes every command that does not exist a usage error which names the near ones. Without this commander hands it to the
 * default command of its group (`runs sotp x` to `runs ls`), and prints the group's help for `runs sotp --help`.
 */
export function refuseUnknownCommands(ao: Command): void {
  for (const group of [ao, ...ao.commands.filter(({ commands }) => commands.length > 0)]) {
    const check = (): void => {
      const [first] = group.args;
      if (first !== undefined && !first.startsWith("-") && !namesOf(group).includes(first))
        throw unknown(ao, group, first);
    };
    group.hook("preSubcommand", check);
    group.on("command:*", check);
    // The same before its help is printed.
    group.on("beforeHelp", check);
  }
}

/**
 * Makes a long option with one dash a usage error: commander takes `-profile x` for `-p rofile x`, and a run with the prompt
 * "rofile" would be made.
 */
export function refuseSingleDashes(ao: Command): void {
  ao.hook("preAction", (_, command) => {
    const longs = new Set([...command.options, ...ao.options].map(({ long }) => long));
    for (const option of command.options) {
      const { short } = option;
      const value: unknown = command.getOptionValue(option.attributeName());
      if (short === undefined || typeof value !== "string") continue;
      const typed = short + value;
      const [name = ""] = typed.split("=");
      if (longs.has(`-${name}`) && ao.args.includes(typed)) {
        throw usage(
          `${name} is not an option`,
          `did you mean -${name}? If ${JSON.stringify(value)} is what you mean, put a space after ${short}`,
        );
      }
    }
  });
}

function namesOf(group: Command): string[] {
  return [...group.commands.flatMap((command) => [command.name(), ...command.aliases()]), "help"];
}

function unknown(ao: Command, group: Command, typed: string): CliError {
  const path = pathOf(group);
  const elsewhere = namesOf(ao).includes(typed) ? [`ao ${typed}`] : [];
  const here = [...synonyms(group, typed), ...nearNames(typed, namesOf(group))].map((name) => `${path} ${name}`);
  const meant = [...elsewhere, ...new Set(here)].map((command) => `\`${command}\``);
  const list = `\`${path} --help\` lists the commands`;
  return usage(
    `unknown command ${JSON.stringify(path.split(" ").slice(1).concat(typed).join(" "))}`,
    meant.length === 0 ? list : `did you mean ${meant.join(" or ")}? ${list}`,
  );
}

function synonyms(group: Command, typed: string): string[] {
  const names = namesOf(group);
  const synonym = SYNONYMS[typed.toLowerCase()]?.find((text) => {
    const [name = ""] = text.split(" ");
    return text === "--version" ? group.parent === null : names.includes(name);
  });
  return synonym === undefined ? [] : [synonym];
}
