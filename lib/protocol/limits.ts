/** Sizes on the wire and in the store, as ADR 3 sets them. All are bytes of UTF-8 or of encoded protobuf. */

const KIB = 1024;
const MIB = 1024 * KIB;

/** Largest single message a server reads, after decompression. Connect's own default is 4 GiB, which a 260 KiB gzip frame can fill. */
export const MESSAGE_MAX_BYTES = 4 * MIB;

/**
 * Largest message our clients write: 64 KiB under what a server reads. A client that sends more than the server takes
 * piles up unsent bodies until Node ends the whole HTTP/2 session, and every other call on it.
 */
export const CLIENT_WRITE_MAX_BYTES = MESSAGE_MAX_BYTES - 64 * KIB;

/** Largest stored invocation; CreateRun refuses more. It travels inside an offer, which keeps 1 MiB of a message for everything else. */
export const INVOCATION_MAX_BYTES = MESSAGE_MAX_BYTES - MIB;

/** Largest text, and largest data as protobuf, of the result of a run; eight results still fit one message. */
export const RESULT_PART_MAX_BYTES = 256 * KIB;

/** Tail of stderr that explains a failed run: some 200 lines. */
export const STDERR_TAIL_MAX_BYTES = 16 * KIB;

/** Largest piece of output or event text in one AppendEvents item; 60 of them fit one message. */
export const EVENT_CHUNK_MAX_BYTES = 64 * KIB;

/** Output kept of one run; a marker says that what follows was dropped. */
export const OUTPUT_MAX_BYTES = 64 * MIB;

/** Smallest limit that cutText and cutTail accept: room for their marker with two 16-digit numbers. */
const CUT_MIN_BYTES = 72;

/**
 * The head of `text` in at most `maxBytes` of UTF-8, marker included: `…[cut: 1234 of 5678 bytes shown]`. Never splits a
 * character; text that fits comes back as it is. `totalBytes` is the size of the whole when `text` is only its head, as of a
 * stream that nobody kept. Throws RangeError when `maxBytes` is under 72.
 */
export function cutText(text: string, maxBytes: number, totalBytes = 0): string {
  const marker = (shown: number, total: number) => `…[cut: ${shown} of ${total} bytes shown]`;
  const cut = roomAfter(marker, text, maxBytes, totalBytes);
  if (cut === undefined) return text;
  const { read, written } = new TextEncoder().encodeInto(text, new Uint8Array(cut.room));
  return text.slice(0, read) + marker(written, cut.total);
}

/** As cutText, but keeps the tail: `[cut: last 1234 of 5678 bytes shown]…` comes first. For stderr, whose end explains most. */
export function cutTail(text: string, maxBytes: number, totalBytes = 0): string {
  const marker = (shown: number, total: number) => `[cut: last ${shown} of ${total} bytes shown]…`;
  const cut = roomAfter(marker, text, maxBytes, totalBytes);
  if (cut === undefined) return text;
  const bytes = Buffer.from(text);
  let start = Math.max(0, bytes.length - cut.room);
  while (isContinuation(bytes[start])) start += 1;
  return marker(bytes.length - start, cut.total) + bytes.toString("utf8", start);
}

/** Size of the text, and bytes left for it beside the widest form of its marker; undefined when nothing must be cut. */
function roomAfter(
  marker: (shown: number, total: number) => string,
  text: string,
  maxBytes: number,
  totalBytes: number,
) {
  if (maxBytes < CUT_MIN_BYTES) throw new RangeError(`maxBytes is ${maxBytes}, but a cut text needs ${CUT_MIN_BYTES}`);
  const total = Math.max(totalBytes, Buffer.byteLength(text));
  if (total <= maxBytes) return undefined;
  return { total, room: maxBytes - Buffer.byteLength(marker(maxBytes, total)) };
}

function isContinuation(byte: number | undefined): boolean {
  return byte !== undefined && (byte & 0xc0) === 0x80;
}

/**
 * Deepest JSON in a Struct or Value: levels of objects and lists. Each level is up to three nested messages on the wire,
 * and readers in Python, Java and C++ stop at 100.
 */
export const JSON_MAX_DEPTH = 24;

/**
 * Deepest nesting that is followed at all, of messages and of JSON: what is between this and the bound above is refused with the
 * name of its field. Readers use the stack, which ends at some three times as many.
 */
export const READ_MAX_DEPTH = 500;
