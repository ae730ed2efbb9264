/*
 * The child's end of children.ts. Preloaded into a program of ours (`node --import`), it tells the bench how much memory
 * that program uses; the program itself knows nothing of it.
 */

/** What a child can be asked, by name. Inputs and answers are JSON. */
export type Questions = Readonly<Record<string, (input: never) => unknown>>;

export interface Memory {
  readonly rssBytes: number;
  readonly heapBytes: number;
}

const questions: Record<string, (input: never) => unknown> = { memory, cpuMs };

process.on("message", ({ id, question, input }: { id: number; question: string; input: unknown }) => {
  const ask = async (): Promise<unknown> => questions[question]?.(input as never);
  ask().then(
    (answer) => process.send?.({ id, answer }),
    (error: unknown) => process.send?.({ id, error: error instanceof Error ? (error.stack ?? "") : String(error) }),
  );
});
// A bench that was killed leaves nothing behind.
process.on("disconnect", () => process.exit());
// A program under test ends when it has nothing to do, as without us.
process.channel?.unref();

/** Adds questions, and keeps the process alive to answer them. */
export function answer(more: Questions): void {
  Object.assign(questions, more);
  process.channel?.ref();
}

/** After a garbage collection, where the process allows one. */
function memory(): Memory {
  // Twice: the first collection runs finalizers, which let go of more.
  globalThis.gc?.();
  globalThis.gc?.();
  const { rss, heapUsed } = process.memoryUsage();
  return { rssBytes: rss, heapBytes: heapUsed };
}

/** Processor time since the process started, of all its threads. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
