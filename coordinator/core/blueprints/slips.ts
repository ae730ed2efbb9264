import { nearNames } from "../../../lib/near-names.ts";

/** The key of `known` that somebody who wrote `key` meant; undefined when it is a word of its own. */
export function meantKey(
  key: string,
  known: readonly string[],
  others: Readonly<Record<string, string>> = {},
): string | undefined {
  const plain = plainKey(key);
  if (Object.hasOwn(others, plain)) return others[plain];
  const plainKnown = new Map(known.map((one) => [plainKey(one), one]));
  const [nearest] = nearNames(plain, [...plainKnown.keys()]);
  return nearest === undefined ? undefined : plainKnown.get(nearest);
}

/** `mcpServers`, `mcp-servers` and `MCP_SERVERS` are one word. */
export function plainKey(key: string): string {
  return key.toLowerCase().replaceAll(/[-_ ]/g, "");
}
