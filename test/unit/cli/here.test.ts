import { afterEach, expect, it, vi } from "vitest";
import { here, newRequestId, requestPrefix } from "../../../cli/here.ts";

afterEach(() => void vi.restoreAllMocks());

it("is a place of its own, from which something can be started, where the directory is deleted", () => {
  const before = here();
  vi.spyOn(process, "cwd").mockImplementation(() => {
    throw Object.assign(new Error("ENOENT: no such file or directory, uv_cwd"), { code: "ENOENT" });
  });
  const place = here();
  expect(place).toEqual({ ...before, directory: "" });
  expect(newRequestId(place).startsWith(requestPrefix(place))).toBe(true);
  expect(requestPrefix(place)).not.toBe(requestPrefix(before));
});
