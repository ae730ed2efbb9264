import { expect, it } from "vitest";
import { FairQueue } from "../../../coordinator/dispatch/fair-queue.ts";

function queueOf(...items: string[]): FairQueue<string> {
  const queue = new FairQueue<string>();
  for (const item of items) queue.add(item);
  return queue;
}

it("has the order of arrival until somebody had a turn, and then that one last", () => {
  const queue = queueOf("a", "b", "c");
  expect([...queue]).toEqual(["a", "b", "c"]);
  queue.hadTurn("a");
  expect([...queue]).toEqual(["b", "c", "a"]);
  queue.hadTurn("c");
  expect([...queue]).toEqual(["b", "a", "c"]);
});

it("puts what is new last, and lets what is in keep its place", () => {
  const queue = queueOf("a", "b");
  queue.hadTurn("a");
  queue.add("c");
  queue.add("b");
  expect([...queue]).toEqual(["b", "a", "c"]);
});

it("puts what left and came back last", () => {
  const queue = queueOf("a", "b");
  queue.delete("a");
  expect([...queue]).toEqual(["b"]);
  queue.add("a");
  expect([...queue]).toEqual(["b", "a"]);
});

it("gives no place to what had its turn after it left", () => {
  const queue = queueOf("a", "b");
  queue.delete("a");
  queue.hadTurn("a");
  queue.delete("never");
  expect([...queue]).toEqual(["b"]);
  expect(queue.size).toBe(1);
});

it("gives everybody a turn when each round takes some from the front", () => {
  const queue = queueOf("a", "b", "c", "d", "e");
  const turns: string[] = [];
  for (let round = 0; round < 5; round++) {
    for (const item of [...queue].slice(0, 2)) {
      turns.push(item);
      queue.hadTurn(item);
    }
  }
  expect(turns.join("")).toBe("abcdeabcde");
});
