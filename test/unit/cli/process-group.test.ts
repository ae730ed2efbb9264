import type { ChildProcess } from "node:child_process";
import { expect, it } from "vitest";
import type { Child } from "../../../cli/children.ts";
import { ProcessGroup } from "../../../cli/process-group.ts";

/** A child that ends when it is told to, by whoever. */
class FakeChild {
  readonly signals: string[] = [];
  readonly #exit = Promise.withResolvers<number>();
  #code: number | undefined;

  end(code: number): void {
    this.#code = code;
    this.#exit.resolve(code);
  }

  get child(): Child {
    const kill = (signal: string): boolean => {
      this.signals.push(signal);
      this.end(0);
      return true;
    };
    const process = { kill } as unknown as ChildProcess;
    return { program: "runner", process, exited: this.#exit.promise, exitCode: () => this.#code };
  }
}

function groupOf(coordinator: FakeChild, ...runners: FakeChild[]): ProcessGroup {
  const group = new ProcessGroup();
  group.coordinator = coordinator.child;
  group.runners.push(...runners.map(({ child }) => child));
  return group;
}

it("a runner that was drained leaves the others, and the last one ends the coordinator", async () => {
  const [coordinator, one, two] = [new FakeChild(), new FakeChild(), new FakeChild()];
  const end = groupOf(coordinator, one, two).end();
  one.end(0);
  await Promise.race([end, new Promise(setImmediate)]);
  expect([coordinator.signals, two.signals]).toEqual([[], []]);
  two.end(0);
  expect(await end).toBe(0);
  expect(coordinator.signals).toEqual(["SIGTERM"]);
});

it("a runner that fails ends the others, and its exit code is that of all", async () => {
  const [coordinator, one, two] = [new FakeChild(), new FakeChild(), new FakeChild()];
  const end = groupOf(coordinator, one, two).end();
  one.end(4);
  expect(await end).toBe(4);
  expect([coordinator.signals, two.signals]).toEqual([["SIGTERM"], ["SIGTERM"]]);
});
