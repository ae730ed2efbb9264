import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { UsageError } from "../../../lib/config/config.ts";
import { readFileIfThere } from "../../../lib/config/read-file.ts";
import { utf8Text } from "../../../lib/text.ts";

describe("the text of a file", () => {
  it("is UTF-8, without a byte order mark", () => {
    expect(utf8Text(Buffer.from("\ufeffYou are größer.\r\n"))).toBe("You are größer.\r\n");
    expect(utf8Text(Buffer.alloc(0))).toBe("");
  });

  it.each([
    ["latin-1", Buffer.from("one\nYou are caf\xe9.", "latin1"), "is not UTF-8 text (line 2): save it as UTF-8"],
    ["UTF-16, little endian", Buffer.from("\ufeffYou", "utf16le"), "is UTF-16, not UTF-8"],
    ["UTF-16, big endian", Buffer.from("\ufeffYou", "utf16le").swap16(), "is UTF-16, not UTF-8"],
    ["half a character", Buffer.from("é").subarray(0, 1), "is not UTF-8 text (line 1)"],
  ])("that is in %s is refused", (_, bytes, message) => {
    expect(() => utf8Text(bytes)).toThrow(message);
  });
});

describe("a configuration file", () => {
  it("is read without its byte order mark, and a wrong encoding is told with its path", () => {
    const dir = mkdtempSync(join(tmpdir(), "ao-text-"));
    const path = join(dir, "c.yaml");
    try {
      expect(readFileIfThere(path)).toBeUndefined();
      writeFileSync(path, "\ufeffheartbeat: 5s\n");
      expect(readFileIfThere(path)).toBe("heartbeat: 5s\n");
      writeFileSync(path, Buffer.from("# f\xfcr alle\n", "latin1"));
      expect(() => readFileIfThere(path)).toThrow(
        new UsageError(`${path} is not UTF-8 text (line 1): save it as UTF-8`),
      );
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
