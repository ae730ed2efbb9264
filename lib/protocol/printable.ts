/**
 * What no name may hold: control characters, line and paragraph separators, and what turns the direction of text, so that a
 * name reads as another. The same as in the rules `printable` of the protocol.
 */
// oxlint-disable-next-line no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/;

/** What is wrong with such a text, in the words of the protocol's rules. */
export const UNPRINTABLE_RULE = "must not hold control characters, nor what turns the direction of text";

export function isPrintable(text: string): boolean {
  return !UNPRINTABLE.test(text);
}
