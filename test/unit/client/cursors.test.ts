import { expect, it } from "vitest";
import { Cursors } from "../../../client/cursors.ts";

it("remembers the places of the last thousand sessions", () => {
  const cursors = new Cursors();
  for (let i = 0; i <= 1_000; i += 1) cursors.reached(`ses_${i}`, `cursor ${i}`);
  expect([cursors.of("ses_0"), cursors.of("ses_1"), cursors.of("ses_1000")]).toEqual(["", "cursor 1", "cursor 1000"]);
});
