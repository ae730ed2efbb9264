import { PAGE_MAX, pages } from "../client/pages.ts";
import type { Cli } from "./cli.ts";
import { total } from "./text/table.ts";

/** What a list call is asked for, and what it returns. */
interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
}
interface Page<T> {
  readonly items: readonly T[];
  readonly nextPageToken: string;
}

/** A part of a list that was asked for, and whether there is more. */
export interface Collected<T> {
  readonly list: T[];
  readonly more: boolean;
}

/** The first `limit` items of a list, over as many pages as it takes. */
export async function collectPages<T>(
  limit: number,
  fetch: (request: PageRequest) => Promise<Page<T>>,
): Promise<Collected<T>> {
  const items: T[] = [];
  const left = () => ({ pageSize: Math.min(PAGE_MAX, limit - items.length) });
  for await (const page of pages((pageToken) => fetch({ ...left(), pageToken }))) {
    items.push(...page.items);
    if (items.length >= limit) return { list: items, more: page.nextPageToken !== "" };
  }
  return { list: items, more: false };
}

/** Says under a list how many there are, to people, and that there are more, to everybody. */
export function sayTotal(cli: Cli, { list, more }: Collected<unknown>, noun: string): void {
  const count = total(list.length, noun);
  if (more) cli.say(`the first ${count}; there are more: --limit ${list.length * 10} shows them`);
  else if (list.length > 0 && cli.io.stdout.isTTY === true && cli.options.output === "text")
    cli.say(cli.paintTalk("dim", count));
}
