/** A JSON object of somebody else's request, of which nothing is known. */
export type Json = Readonly<Record<string, unknown>>;

/** The value as an object; empty when it is none. */
export function object(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

/** The value as a list of objects; empty when it is none. */
export function objects(value: unknown): Json[] {
  return Array.isArray(value) ? value.map(object) : [];
}

/** The value as a string; empty when it is none. */
export function string(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** The texts of a message's content, which is a text, a part, or a list of parts. */
export function texts(content: unknown): string[] {
  if (typeof content === "string") return [content];
  const parts = Array.isArray(content) ? content.map(object) : [object(content)];
  return parts.flatMap(({ text }) => (typeof text === "string" ? [text] : []));
}
