/** An error of ours: an invariant that does not hold. `code` names the place in the source, such as ROW2. */
export function bug(code: string, message: string): Error {
  return new Error(`bug[${code}]: ${message}`);
}
