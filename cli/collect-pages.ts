import type { Cli } from "./cli.ts";

/** Most items that a page of the server holds. */
const PAGE_MAX = 1000;

/** What a list call is asked for, and what it returns. */
interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
}
interface Page<T> {
  readonly items: readonly T[];
  readonly nextPageToken: string;
}

/** The first `limit` items of a list, over as many pages as it takes. Says on stderr when there are more. */
export async function collectPages<T>(
  cli: Cli,
  limit: number,
  fetch: (request: PageRequest) => Promise<Page<T>>,
): Promise<T[]> {
  const items: T[] = [];
  let pageToken = "";
  do {
    const page = await fetch({ pageSize: Math.min(PAGE_MAX, limit - items.length), pageToken });
    items.push(...page.items);
    pageToken = page.nextPageToken;
  } while (pageToken !== "" && items.length < limit);
  if (pageToken !== "") cli.say(`there are more; --limit ${limit * 10} shows them`);
  return items;
}
