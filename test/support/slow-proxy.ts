import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

/** Bytes that pass at once. */
const SLICE_BYTES = 1024;

export interface SlowProxyOptions {
  /** URL of what is behind it. */
  readonly url: string;
  /** Bytes a second, of all connections together. Unlimited when absent. */
  readonly up?: number;
  readonly down?: number;
}

/** Lets so many bytes a second through, whoever sends them. */
class Narrow {
  readonly #bytesPerSecond: number;
  #freeAtMs = 0;

  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  async pass(bytes: number): Promise<void> {
    const nowMs = performance.now();
    this.#freeAtMs = Math.max(this.#freeAtMs, nowMs) + (1000 * bytes) / this.#bytesPerSecond;
    const waitMs = this.#freeAtMs - nowMs;
    if (waitMs > 1) await delay(waitMs);
  }
}

/** A TCP proxy on loopback that is as slow as a bad uplink. It holds a chunk of each direction of a connection, no more. */
export class SlowProxy {
  readonly #server = createServer((client) => this.#join(client));
  readonly #sockets = new Set<Socket>();
  readonly #target: URL;
  readonly #up: Narrow | undefined;
  readonly #down: Narrow | undefined;
  #blocked = false;

  private constructor({ url, up, down }: SlowProxyOptions) {
    this.#target = new URL(url);
    this.#up = up === undefined ? undefined : new Narrow(up);
    this.#down = down === undefined ? undefined : new Narrow(down);
  }

  static async start(options: SlowProxyOptions): Promise<SlowProxy> {
    const proxy = new SlowProxy(options);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Breaks every connection, and each new one. */
  block(): void {
    this.#blocked = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  unblock(): void {
    this.#blocked = false;
  }

  async stop(): Promise<void> {
    this.block();
    this.#server.close();
    await once(this.#server, "close");
  }

  #join(client: Socket): void {
    if (this.#blocked) {
      client.destroy();
      return;
    }
    const server = connect(Number(this.#target.port), this.#target.hostname);
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.setNoDelay();
      socket.on("error", () => undefined);
      socket.on("close", () => {
        this.#sockets.delete(socket);
        client.destroy();
        server.destroy();
      });
    }
    void pump(client, server, this.#up);
    void pump(server, client, this.#down);
  }
}

async function pump(from: Socket, to: Socket, narrow: Narrow | undefined): Promise<void> {
  try {
    for await (const chunk of from as AsyncIterable<Buffer>) {
      for (let at = 0; at < chunk.length; at += SLICE_BYTES) {
        const slice = chunk.subarray(at, at + SLICE_BYTES);
        await narrow?.pass(slice.length);
        if (!to.write(slice) && !to.destroyed) await Promise.race([once(to, "drain"), once(to, "close")]);
      }
    }
    to.end();
  } catch {
    to.destroy();
  }
}
