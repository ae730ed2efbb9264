import { once } from "node:events";
import { createServer } from "node:http";
import type { Server } from "node:http";
import { connect } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";

/** An HTTP proxy on loopback that knows CONNECT: every name leads to `target`, whatever host it asks for. */
export class ConnectProxy {
  /** What was asked for, with the credentials. */
  readonly asked: { readonly target: string; readonly authorization: string | undefined }[] = [];
  /** Answers this instead of opening the way. */
  refusal: string | undefined;
  /** Answers nothing at all. */
  silent = false;
  readonly #server: Server;
  readonly #sockets = new Set<Duplex>();

  private constructor(targetPort: number) {
    this.#server = createServer((_, response) => response.writeHead(405).end());
    this.#server.on("connect", (request, client: Socket, head) => {
      this.asked.push({ target: request.url ?? "", authorization: request.headers["proxy-authorization"] });
      let server: Socket | undefined;
      this.#keep(client, () => server);
      if (this.silent) return undefined;
      if (this.refusal !== undefined) return client.end(`HTTP/1.1 ${this.refusal}\r\n\r\n`);
      server = connect(targetPort, "127.0.0.1", () => {
        client.write("HTTP/1.1 200 Connection established\r\n\r\n");
        server?.write(head);
        client.pipe(server!).pipe(client);
      });
      this.#keep(server, () => client);
      return undefined;
    });
  }

  static async start(targetPort: number): Promise<ConnectProxy> {
    const proxy = new ConnectProxy(targetPort);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Cuts every connection, and takes new ones. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }

  #keep(socket: Duplex, other: () => Duplex | undefined): void {
    this.#sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.#sockets.delete(socket);
      other()?.destroy();
    });
  }
}
