/** Versions of the protocol that this package speaks, as a coordinator and as a runner. */
export const PROTOCOL = { min: 1, max: 1 } as const;

/** Highest version that we and a peer both speak; undefined when there is none. A peer's 0 means that it named none: 1. */
export function protocolVersion(min: number, max: number): number | undefined {
  const version = Math.min(max || 1, PROTOCOL.max);
  return version >= Math.max(min || 1, PROTOCOL.min) ? version : undefined;
}
