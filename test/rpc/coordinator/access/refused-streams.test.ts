import { once } from "node:events";
import { connect } from "node:http2";
import type { ClientHttp2Session } from "node:http2";
import { afterEach, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";

afterEach(stopTestCoordinators);

/** One message of the Connect protocol's streams. */
function envelope(payload: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(payload.length, 1);
  return Buffer.concat([head, payload]);
}

/** Sends a body to a method and returns the HTTP status, or the code of the reset that ended the stream. */
async function send(session: ClientHttp2Session, path: string, type: string, body: Buffer): Promise<number> {
  const stream = session.request({ ":method": "POST", ":path": path, "content-type": type });
  stream.on("error", () => undefined);
  stream.end(body);
  stream.resume();
  const [headers] = (await Promise.race([once(stream, "response"), once(stream, "close").then(() => [{}])])) as [
    Record<string, unknown>,
  ];
  if (!stream.closed) await once(stream, "close");
  return Number(headers[":status"] ?? stream.rstCode);
}

it("refused streams that send more than was read leave their connection usable", async () => {
  const { url } = await startTestCoordinator();
  const session = connect(url);
  session.on("error", () => undefined);
  const asked = envelope(Buffer.from(JSON.stringify({ runner_id: "lnch_nobody", boot_id: "boot_1" })));
  const more = envelope(Buffer.alloc(3 * 1024 * 1024, "x"));
  for (let i = 0; i < 6; i += 1) {
    const path = "/agentrunner.v1.RunnerService/WatchRuns";
    await send(session, path, "application/connect+json", Buffer.concat([asked, more]));
  }
  expect(await send(session, "/agentrunner.v1.RunService/ListRuns", "application/json", Buffer.from("{}"))).toBe(200);
  session.close();
});
