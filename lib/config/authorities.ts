import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { UsageError } from "./config.ts";
import { mustBeReadable } from "./file-kind.ts";
import { fileProblem } from "./file-problem.ts";

/**
 * The certificate authorities of `--tls-ca`. Node takes a file that holds none without a word, and then trusts nobody.
 *
 * @throws UsageError
 */
export function readAuthorities(path: string): string {
  let pem: string;
  try {
    mustBeReadable(path);
    pem = readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError(`--tls-ca ${path} cannot be read: ${fileProblem(error, path)}`);
  }
  try {
    void new X509Certificate(pem);
  } catch {
    throw new UsageError(`--tls-ca ${path} holds no certificate in PEM form`);
  }
  return pem;
}
