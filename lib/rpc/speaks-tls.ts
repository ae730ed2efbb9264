import { connect } from "node:tls";

/**
 * True when what listens at the host and port of `url` completes a TLS handshake within `timeoutMs`. It gets nothing but the
 * handshake, and the connection is closed after it. Never rejects.
 */
export function speaksTls(url: string, timeoutMs: number): Promise<boolean> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket = connect({
      host: hostname.replace(/^\[|\]$/g, ""),
      port: Number(port || 80),
      // Whom it belongs to does not matter: nothing but the handshake is said to it.
      rejectUnauthorized: false,
    });
    const finish = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(timeoutMs, () => finish(false));
    socket.once("secureConnect", () => finish(true));
    socket.on("error", () => finish(false));
    socket.once("close", () => finish(false));
  });
}
