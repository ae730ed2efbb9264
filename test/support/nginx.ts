import { accessSync, constants } from "node:fs";
import { writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { freePort } from "./free-port.ts";
import { inRepository } from "./paths.ts";

/** Where nginx is; undefined on a machine without it. Debian puts it where only root looks. */
export function findNginx(): string | undefined {
  const dirs = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin"];
  return dirs.map((dir) => join(dir, "nginx")).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The ways in which it can stand before a coordinator. `buffering` is `proxy_pass` that does not do as it is told. */
export type Way = "grpc_pass" | "proxy_pass" | "buffering";

/** The server of each way, as docs/guide/operating.md shows it, with nothing but defaults. */
const LOCATION: Record<Way, (port: number) => string> = {
  grpc_pass: (port) => `grpc_pass grpc://127.0.0.1:${port};`,
  proxy_pass: (port) => `proxy_pass http://127.0.0.1:${port};`,
  buffering: (port) => `proxy_pass http://127.0.0.1:${port}; proxy_ignore_headers X-Accel-Buffering;`,
};

export interface NginxPlan {
  readonly dir: string;
  readonly way: Way;
  readonly coordinatorPort: number;
  /** Directives for the whole of http, such as shorter timeouts. */
  readonly more?: string;
}

/** Writes nginx.conf in `dir`. Returns the arguments that start it there, and where it listens. */
export async function configure({ dir, way, coordinatorPort, more = "" }: NginxPlan) {
  const port = await freePort();
  const tls = inRepository("test/fixtures/tls");
  const secure = way !== "grpc_pass";
  const listen = secure
    ? `listen 127.0.0.1:${port} ssl http2; ssl_certificate ${tls}/cert.pem; ssl_certificate_key ${tls}/key.pem;`
    : `listen 127.0.0.1:${port} http2;`;
  const temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path temp-${name};`);
  const file = join(dir, "nginx.conf");
  writeFileSync(
    file,
    `${process.getuid?.() === 0 ? "user root;" : ""}
worker_processes 1; daemon off; pid nginx.pid; worker_shutdown_timeout 1s;
error_log stderr warn;
events { worker_connections 512; }
http {
  access_log off; ${temp.join(" ")} ${more}
  server { ${listen} location / { ${LOCATION[way](coordinatorPort)} } }
}
`,
  );
  // In the certificate is localhost.
  return { args: ["-p", dir, "-c", file], url: `${secure ? "https" : "http"}://localhost:${port}`, port };
}
