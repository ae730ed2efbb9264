import { resolve } from "node:path";

/** How a setting is written and read. */
export interface Kind<T> {
  /** Placeholder in the help, such as DURATION; empty for a switch. */
  readonly placeholder: string;
  /** What is accepted, for the error text: "a duration such as 200ms, 10s, 10m or 30d". */
  readonly expects: string;
  /** True for a flag that may be given several times. */
  readonly many: boolean;
  /** Undefined when the texts are not acceptable. Every kind but a list gets exactly one. */
  readonly parse: (texts: readonly string[]) => T | undefined;
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds of `200ms`, `10s`, `10m`, `12h`, `30d`, `1m30s` or `0`; undefined for anything else. */
export function parseDurationMs(text: string): number | undefined {
  if (text === "0") return 0;
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) return undefined;
  let totalMs = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    totalMs += Number(amount) * (UNIT_MS[unit ?? ""] ?? Number.NaN);
  }
  return Math.round(totalMs);
}

/** The shortest way to write a duration: 90000 is `1m30s`. */
export function formatDurationMs(durationMs: number): string {
  if (durationMs === 0) return "0";
  let restMs = durationMs;
  let text = "";
  for (const [unit, unitMs] of Object.entries(UNIT_MS).reverse()) {
    const count = Math.floor(restMs / unitMs);
    if (count > 0) text += `${count}${unit}`;
    restMs -= count * unitMs;
  }
  return text;
}

function single<T>(placeholder: string, expects: string, parse: (text: string) => T | undefined): Kind<T> {
  return {
    placeholder,
    expects,
    many: false,
    parse: ([text, ...more]) => (text === undefined || more.length > 0 ? undefined : parse(text)),
  };
}

/** Bounds of a duration. Node's timers end at 2^31 - 1 ms, some 24 days: a setting that arms one says so with `maxMs`. */
interface DurationBounds {
  readonly minMs?: number;
  readonly maxMs?: number;
}

export const TIMER_MAX_MS = 2 ** 31 - 1;

/** A duration in milliseconds. */
export function duration({ minMs = 0, maxMs = TIMER_MAX_MS }: DurationBounds = {}): Kind<number> {
  const range = `from ${formatDurationMs(minMs)} to ${formatDurationMs(maxMs)}`;
  return single("DURATION", `a duration such as 200ms, 10s, 10m or 30d, ${range}`, (text) => {
    const valueMs = parseDurationMs(text);
    return valueMs === undefined || valueMs < minMs || valueMs > maxMs ? undefined : valueMs;
  });
}

/** A duration in milliseconds, where a number without unit counts as seconds. */
export function seconds({ minMs = 0, maxMs = TIMER_MAX_MS }: DurationBounds = {}): Kind<number> {
  const { parse } = duration({ minMs, maxMs });
  return single("SECONDS", "seconds such as 30, or a duration such as 500ms or 2m", (text) =>
    parse([/^\d+(\.\d+)?$/.test(text) ? `${text}s` : text]),
  );
}

/** A whole number from `min` to `max`. */
export function int(min: number, max: number): Kind<number> {
  return single("NUMBER", `a whole number from ${min} to ${max}`, (text) => {
    const value = Number(text);
    return /^\d+$/.test(text) && value >= min && value <= max ? value : undefined;
  });
}

/** A switch: the flag alone, or true, false, 1, 0, yes, no. */
export const bool: Kind<boolean> = {
  ...single("", "true or false", (text) => {
    if (["true", "1", "yes"].includes(text.toLowerCase())) return true;
    if (["false", "0", "no"].includes(text.toLowerCase())) return false;
    return undefined;
  }),
};

/** Any text of at most `maxLength` characters. */
export function string(placeholder = "TEXT", maxLength = 4096): Kind<string> {
  return single(placeholder, `a text of at most ${maxLength} characters`, (text) =>
    text.length <= maxLength ? text : undefined,
  );
}

/** A path, made absolute from the current directory. `:memory:` and other meanings are the caller's. */
export function path(placeholder = "PATH"): Kind<string> {
  return single(placeholder, "a path", (text) => (text === "" ? undefined : resolve(text)));
}

/** An http or https URL, without a slash at its end. */
export const url: Kind<string> = single("URL", "a URL such as http://localhost:8765", (text) => {
  const parsed = URL.parse(text);
  if (parsed === null || (parsed.protocol !== "http:" && parsed.protocol !== "https:")) return undefined;
  return text.replace(/\/+$/, "");
});

/** `HOST:PORT`, `[IPV6]:PORT` or `:PORT`; port 0 takes a free one. */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

export const hostPort: Kind<HostPort> = single("HOST:PORT", "HOST:PORT such as 127.0.0.1:8765", (text) => {
  const [, host, port] = /^(?:\[([^\]]+)\]|[^:]*):(\d{1,5})$/.exec(text) ?? [];
  if (port === undefined || Number(port) > 65_535) return undefined;
  return { host: host ?? (text.slice(0, text.lastIndexOf(":")) || "127.0.0.1"), port: Number(port) };
});

/** One of a few words. */
export function oneOf<const W extends string>(...words: readonly W[]): Kind<W> {
  return single(words.join("|"), `one of ${words.join(", ")}`, (text) => words.find((word) => word === text));
}

/** Texts; the flag is given once for each, a variable separates them with commas. At most 64 of 1 to 4096 characters. */
export function list(placeholder: string, each: (text: string) => string = (text) => text): Kind<readonly string[]> {
  return {
    placeholder,
    expects: "at most 64 texts of 1 to 4096 characters",
    many: true,
    parse: (texts) =>
      texts.length > 64 || texts.some((text) => text === "" || text.length > 4096) ? undefined : texts.map(each),
  };
}
