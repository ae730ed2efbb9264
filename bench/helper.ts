import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:http2";
import type { ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { answer } from "./answer.ts";

/*
 * A process beside the bench that does one thing: open streams, serve bare ones, or spawn programs. What is large is
 * imported by those who need it, because the size of a process decides how fast it spawns.
 */

/** Registrations under way at a time. */
const OPENING = 32;

answer({ openRunners, openStreams, serveStreams, spawnBare });

/** Registers `n` runners and opens the stream of each, on a connection of its own. */
async function openRunners({ url, first, n }: { url: string; first: number; n: number }): Promise<void> {
  const { BareRunner } = await import("./bare-runner.ts");
  const { concurrently } = await import("./raw.ts");
  await concurrently(OPENING, n, (i) => BareRunner.open(url, `runner-${first + i}`, 1));
}

/** Opens `n` bare streams, each on a connection of its own, and waits for the first byte of each. */
async function openStreams({ url, n }: { url: string; n: number }): Promise<void> {
  const { concurrently } = await import("./raw.ts");
  await concurrently(OPENING, n, async () => {
    const stream = connect(url).request({ ":method": "POST", ":path": "/watch" });
    await once(stream, "data");
  });
}

/** Serves streams that say one thing and stay open. Returns the URL. */
async function serveStreams(): Promise<string> {
  const server = createServer();
  server.on("stream", (stream: ServerHttp2Stream) => {
    stream.on("error", () => undefined);
    stream.respond({ ":status": 200 });
    stream.write("opened");
  });
  server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 });
  await once(server, "listening");
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

interface SpawnOrder {
  readonly command: string;
  readonly stdin: string;
  readonly count: number;
  readonly concurrency: number;
  /** The process is padded to this size before the first spawn. */
  readonly rssBytes: number;
}

/** Spawns a program again and again, gives it its stdin and reads what it says. Returns how many a second. */
async function spawnBare({ command, stdin, count, concurrency, rssBytes }: SpawnOrder): Promise<number> {
  const padding = Buffer.alloc(Math.max(0, rssBytes - process.memoryUsage.rss()), 1);
  const { concurrently } = await import("./raw.ts");
  const start = performance.now();
  await concurrently(concurrency, count, async () => {
    const child = spawn(command, { stdio: "pipe", env: { PATH: process.env["PATH"] }, detached: true });
    child.stdout.resume();
    child.stderr.resume();
    child.stdin.end(stdin);
    await once(child, "close");
  });
  const perSecond = (count * 1000) / (performance.now() - start);
  // Read last, so that the padding stays until the end.
  return padding.length >= 0 ? perSecond : NaN;
}
