import { afterEach, expect, it } from "vitest";
import { healthClient, PROTOCOL_NAMES, startTestServer, stopTestServers } from "../../support/test-server.ts";
import { until } from "../../support/until.ts";

afterEach(stopTestServers);

it.each(PROTOCOL_NAMES)(
  "a call of %s is forgotten when it was answered, and a stream when its client left",
  async (protocol) => {
    const server = await startTestServer();
    const client = healthClient(server.url, protocol);
    for (let i = 0; i < 5; i += 1) await client.check({});
    await until(() => server.calls() === 0, "the answered calls are forgotten");
    const leave = new AbortController();
    const stream = client.watch({}, { signal: leave.signal })[Symbol.asyncIterator]();
    await stream.next();
    expect(server.calls()).toBe(1);
    leave.abort();
    await expect(stream.next()).rejects.toThrow();
    await until(() => server.calls() === 0, "the stream is forgotten");
  },
);
