import { X509Certificate, createPrivateKey } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { UsageError } from "../../lib/config/config.ts";
import { mustBeReadable } from "../../lib/config/file-kind.ts";
import { fileProblem } from "../../lib/config/file-problem.ts";

/** Where the certificate and its key are. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
}

/** What a port needs to speak TLS, and what is odd about it. */
export interface Tls {
  readonly certPem: string;
  readonly keyPem: string;
  /** Until when the certificate is valid, in ISO form. */
  readonly validTo: string;
  /** For the log, in whole sentences. */
  readonly warnings: readonly string[];
}

/**
 * Reads the certificate and its key, and holds them against each other, so that a mistake is named by its file and not by
 * OpenSSL's words.
 *
 * @throws UsageError
 */
export function readTls({ cert, key }: TlsFiles, nowMs: number): Tls {
  const certPem = readPem("--tls-cert", cert);
  const keyPem = readPem("--tls-key", key);
  const certificate = certificateOf(certPem);
  if (certificate === undefined) throw new UsageError(notA("certificate", "--tls-cert", cert, certPem));
  const privateKey = privateKeyOf(keyPem);
  if (privateKey === undefined) throw new UsageError(notA("private key", "--tls-key", key, keyPem));
  if (!certificate.checkPrivateKey(privateKey)) {
    throw new UsageError(`--tls-key ${key} is not the key of the certificate in --tls-cert ${cert}`);
  }
  try {
    createSecureContext({ cert: certPem, key: keyPem });
  } catch (error) {
    throw new UsageError(`--tls-cert ${cert} and --tls-key ${key} cannot be used: ${String(error)}`);
  }
  const warnings = [...datesOf(certificate, cert, nowMs), ...modeOf(key)];
  return { certPem, keyPem, validTo: certificate.validToDate.toISOString(), warnings };
}

function readPem(flag: string, path: string): string {
  try {
    mustBeReadable(path);
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError(`${flag} ${path} cannot be read: ${fileProblem(error, path)}`);
  }
}

/** What a file holds in place of what it should. */
function notA(what: "certificate" | "private key", flag: string, path: string, pem: string): string {
  const other = what === "certificate" ? "private key" : "certificate";
  const holdsOther = other === "certificate" ? certificateOf(pem) !== undefined : privateKeyOf(pem) !== undefined;
  if (holdsOther) return `${flag} ${path} holds a ${other}, not a ${what}: are --tls-cert and --tls-key swapped?`;
  if (pem.includes("ENCRYPTED")) {
    return `${flag} ${path} is encrypted with a passphrase, and nobody is there to type it: openssl pkey -in ${path} decrypts it`;
  }
  return `${flag} ${path} holds no ${what} in PEM form${pem.trim() === "" ? ": it is empty" : ""}`;
}

function certificateOf(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch {
    return undefined;
  }
}

function privateKeyOf(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined;
  }
}

function datesOf({ validFromDate, validToDate }: X509Certificate, cert: string, nowMs: number): string[] {
  if (validToDate.getTime() < nowMs) return [`the certificate ${cert} expired on ${validToDate.toISOString()}`];
  if (validFromDate.getTime() > nowMs)
    return [`the certificate ${cert} is valid from ${validFromDate.toISOString()} on`];
  return [];
}

function modeOf(key: string): string[] {
  // Groups such as ssl-cert are a usual way to share a key; everybody is not.
  const open = statSync(key).mode & 0o007;
  return open === 0 ? [] : [`the private key ${key} can be read by everybody on this machine: chmod o= ${key}`];
}
