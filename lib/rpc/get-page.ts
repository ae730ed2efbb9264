import type { Http2SessionManager } from "@connectrpc/connect-node";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ClientHttp2Stream, IncomingHttpHeaders } from "node:http2";
import { constants } from "node:http2";
import { abortable } from "./abortable.ts";

/** Most of a page that is read. */
const PAGE_MAX_BYTES = 64 * 1024;

/** An answer to a GET. */
export interface Page {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Its first 64 KiB. */
  readonly text: string;
}

/** Gets a page over the connection that calls use. Rejects with what a call would, and DEADLINE_EXCEEDED after `timeoutMs`. */
export async function getPage(sessions: Http2SessionManager, path: string, timeoutMs: number): Promise<Page> {
  const deadline = new AbortController();
  const late = new ConnectError(`no answer in ${timeoutMs / 1000} s`, Code.DeadlineExceeded);
  const timer = setTimeout(() => deadline.abort(late), timeoutMs);
  const asked = sessions.request("GET", path, {}, {}).then(read);
  try {
    return await abortable(
      asked.then(({ page }) => page),
      deadline.signal,
    );
  } finally {
    clearTimeout(timer);
    // Also when the connection comes after the deadline; what failed was said above.
    asked.then(
      ({ stream }) => stream.close(constants.NGHTTP2_CANCEL),
      () => undefined,
    );
  }
}

function read(stream: ClientHttp2Stream): { stream: ClientHttp2Stream; page: Promise<Page> } {
  stream.on("error", () => undefined);
  stream.end();
  return { stream, page: readToEnd(stream) };
}

async function readToEnd(stream: ClientHttp2Stream): Promise<Page> {
  let headers: IncomingHttpHeaders | undefined;
  stream.once("response", (response) => {
    headers = response;
  });
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > PAGE_MAX_BYTES) break;
  }
  if (headers === undefined) throw new ConnectError("the connection ended before the answer", Code.Aborted);
  const text = Buffer.concat(chunks).toString("utf8", 0, PAGE_MAX_BYTES);
  return { status: Number(headers[":status"]), headers, text };
}
