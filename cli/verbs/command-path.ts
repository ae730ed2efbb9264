import type { Command } from "commander";

/** What is typed to come to a command: `ao`, or `ao runs`. */
export function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}
