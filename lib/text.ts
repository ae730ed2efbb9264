/** The bytes are no text that can be read. The message says why, and goes on after the name of what was read. */
export class NotText extends Error {
  override readonly name = "NotText";
}

const decoder = new TextDecoder("utf-8", { fatal: true });

/**
 * Text of a file or a message, as editors of every system save it: UTF-8, without the byte order mark that some put first.
 * @throws NotText for every other encoding, which would otherwise be read as other characters than were written.
 */
export function utf8Text(bytes: Uint8Array): string {
  if (bytes.length >= 2 && ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff))) {
    throw new NotText("is UTF-16, not UTF-8: save it as UTF-8");
  }
  try {
    return decoder.decode(bytes);
  } catch {
    throw new NotText(`is not UTF-8 text${placeOf(bytes)}: save it as UTF-8`);
  }
}

/** The line with the first byte that is wrong, for people to find it. */
function placeOf(bytes: Uint8Array): string {
  const lenient = Buffer.from(bytes).toString("utf8");
  const at = lenient.indexOf("\ufffd");
  return at < 0 ? "" : ` (line ${lenient.slice(0, at).split("\n").length})`;
}
