/** The `authorization` header's value for a token (RFC 6750, section 2.1). */
export function bearer(token: string): string {
  return `Bearer ${token}`;
}

/** The token of an `authorization` header: undefined without the header, empty when it is of another scheme. */
export function bearerToken(headers: { get(name: string): string | null }): string | undefined {
  const header = headers.get("authorization");
  return header === null ? undefined : (/^Bearer +(.+)$/i.exec(header)?.[1]?.trim() ?? "");
}
