import type { ExecutorInvocationJson } from "../../lib/invocation.ts";
import { InvocationError, parseInvocation } from "../../lib/invocation.ts";

export { InvocationError } from "../../lib/invocation.ts";

/** Largest document that is read. A stored invocation has at most 3 MiB; JSON that escapes every character of it doubles that. */
export const STDIN_MAX_BYTES = 8 * 1024 * 1024;

/** What the runner asks of this process. */
export type ExecutorInvocation = ExecutorInvocationJson;

export const ExecutorInvocation = {
  /**
   * Reads stdin to its end. Rejects with InvocationError for more than 8 MiB, for bytes that are not UTF-8, and for all
   * that parseInvocation refuses.
   */
  async fromStdin(stdin: AsyncIterable<Uint8Array> = process.stdin): Promise<ExecutorInvocation> {
    return parseInvocation(decoded(await readAll(stdin)));
  },
};

async function readAll(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > STDIN_MAX_BYTES) throw new InvocationError(`invocation: longer than ${STDIN_MAX_BYTES} bytes`);
  }
  return Buffer.concat(chunks);
}

function decoded(bytes: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new InvocationError("invocation: not UTF-8", { cause: error });
  }
}
