/** Numbers with dots, and what a pre-release adds: `1.2.3`, `2.0-beta.1`. */
const VERSION = /(?<![\d.])\d+(?:\.\d+){1,3}(?:-[0-9A-Za-z]+(?:\.[0-9A-Za-z]+)*)?/;

/** The first version number in what a program says of itself; undefined when there is none. */
export function versionIn(text: string): string | undefined {
  return VERSION.exec(text)?.[0];
}

/** Negative when `a` is the older one, 0 when both are the same. A pre-release is older than its release. */
export function compareVersions(a: string, b: string): number {
  const [first, second] = [parts(a), parts(b)];
  for (let i = 0; i < Math.max(first.numbers.length, second.numbers.length); i++) {
    const difference = (first.numbers[i] ?? 0) - (second.numbers[i] ?? 0);
    if (difference !== 0) return difference;
  }
  if (first.pre === second.pre) return 0;
  if (first.pre === "" || second.pre === "") return first.pre === "" ? 1 : -1;
  return first.pre.localeCompare(second.pre, "en", { numeric: true });
}

function parts(version: string): { numbers: number[]; pre: string } {
  const [numbers = "", ...pre] = version.split("-");
  return { numbers: numbers.split(".").map(Number), pre: pre.join("-") };
}
