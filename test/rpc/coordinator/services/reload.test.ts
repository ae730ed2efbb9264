import { X509Certificate } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseCoordinatorConfig } from "../../../../coordinator/config.ts";
import type { CoordinatorConfig } from "../../../../coordinator/config.ts";
import { changedSettings, reload } from "../../../../coordinator/reload.ts";
import { startCoordinator } from "../../../../coordinator/start.ts";
import type { RunningCoordinator } from "../../../../coordinator/start.ts";
import { createLogger } from "../../../../lib/log.ts";
import { inRepository } from "../../../support/paths.ts";

let dir: string;
let running: RunningCoordinator;
const lines: Record<string, unknown>[] = [];
const log = createLogger({
  name: "test",
  level: "info",
  format: "json",
  destination: { write: (line: string) => lines.push(JSON.parse(line)) },
});

function configOf(...flags: string[]): CoordinatorConfig {
  const tls = ["--tls-cert", join(dir, "cert.pem"), "--tls-key", join(dir, "key.pem")];
  const args = ["--listen", "127.0.0.1:0", "--memory", "--agents-dir", join(dir, "agents"), ...tls, ...flags];
  const parsed = parseCoordinatorConfig(args, {}, () => undefined);
  if (parsed.type !== "config") throw new Error(parsed.text);
  return parsed.config;
}

function useCertificate(name: string): void {
  for (const kind of ["cert", "key"]) {
    copyFileSync(inRepository(`test/fixtures/tls/${name}${kind}.pem`), join(dir, `${kind}.pem`));
  }
}

/** The serial number of the certificate that a new connection is shown. */
async function serial(): Promise<string> {
  const socket = connect({ port: running.port, host: "127.0.0.1", rejectUnauthorized: false, ALPNProtocols: ["h2"] });
  try {
    await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
    return new X509Certificate(socket.getPeerCertificate(true).raw).serialNumber;
  } finally {
    socket.destroy();
  }
}

function broken(name: string): void {
  mkdirSync(join(dir, "agents", name), { recursive: true });
  writeFileSync(join(dir, "agents", name, "agent.json"), "{");
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "reload-"));
  mkdirSync(join(dir, "agents"));
  useCertificate("");
  running = await startCoordinator(configOf(), log);
});

afterAll(async () => {
  await running.stop(0);
  rmSync(dir, { recursive: true });
});

describe("a reload", () => {
  it("shows new connections the certificate that is there now, and keeps it when the next one is of no use", async () => {
    const first = await serial();
    useCertificate("second-");
    expect(await serial()).toBe(first);
    await reload(running, configOf(), configOf, log);
    const second = await serial();
    expect(second).not.toBe(first);
    copyFileSync(inRepository("test/fixtures/tls/cert.pem"), join(dir, "cert.pem"));
    await reload(running, configOf(), configOf, log);
    expect(await serial()).toBe(second);
    expect(lines.find(({ level }) => level === "error")).toMatchObject({
      msg: "the certificate cannot be used; the one before it stays",
      reason: expect.stringContaining("is not the key of the certificate"),
    });
  });

  it("says which blueprints are broken, and which settings only a restart changes", async () => {
    broken("clerk");
    await reload(running, configOf(), () => configOf("--retain", "1d", "--max-depth", "2"), log);
    expect(lines).toContainEqual(expect.objectContaining({ level: "warn", usable: 0, broken: ["clerk"] }));
    expect(lines).toContainEqual(expect.objectContaining({ level: "warn", settings: ["retain", "max-depth"] }));
    expect(changedSettings(configOf(), configOf())).toEqual([]);
  });
});
