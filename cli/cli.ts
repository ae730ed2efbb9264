import type { DescMessage, JsonObject, JsonValue, MessageShape } from "@bufbuild/protobuf";
import { toJson } from "@bufbuild/protobuf";
import type { Command } from "commander";
import type { Readable } from "node:stream";
import { getCACertificates, setDefaultCACertificates } from "node:tls";
import { connect } from "../client/connect.ts";
import type { Services } from "../client/connect.ts";
import type { CoordinatorLink } from "../lib/rpc/transport.ts";
import { readAuthorities } from "../lib/config/authorities.ts";
import { UsageError } from "../lib/config/config.ts";
import { usage } from "./errors.ts";
import { asTyped } from "../lib/own-command.ts";
import type { Sink } from "./screen.ts";
import { Screen } from "./screen.ts";
import type { Paint } from "./text/format.ts";
import { ansi, clean, plain } from "./text/format.ts";

/** Everything that a verb touches of its process, so that tests can stand in for it. */
export interface Io {
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Sink;
  readonly stderr: Sink;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Calls `listener` at a Ctrl+C instead of ending the process; returns the way to undo that. */
  onInterrupt(listener: () => void): () => void;
}

/** Options that every verb has. */
export interface GlobalOptions {
  readonly coordinatorUrl?: string;
  /** PEM file. */
  readonly tlsCa?: string;
  readonly output: "text" | "json" | "jsonl" | "name";
  readonly color: "auto" | "always" | "never";
  readonly verbose?: true;
  readonly quiet?: true;
  readonly raw?: true;
}

/** Coordinator that is meant when nobody names one. */
export const DEFAULT_URL = "http://localhost:8765";

/** What a verb works with: the services, and the two streams. stdout is data, stderr is talk. */
export interface Cli extends Services {
  readonly io: Io;
  readonly screen: Screen;
  readonly options: GlobalOptions;
  readonly url: string;
  /** The connection of the services, for pages and other services. */
  readonly link: CoordinatorLink;
  /** Columns of the terminal that stdout is; Infinity for a pipe. */
  readonly columns: number;
  /** Paints for stdout. */
  readonly paint: Paint;
  /** Paints for stderr. */
  readonly paintTalk: Paint;
  /** Writes a line of data. */
  print(line: string): void;
  /** Writes a line of talk. */
  say(line: string): void;
  /** Prints a value as JSON: on one line with jsonl. */
  printJson(value: unknown): void;
  /** Prints one message: JSON, its name, or the text that `text` makes. */
  printMessage<D extends DescMessage>(desc: D, message: MessageShape<D>, text: () => string): void;
  /**
   * Prints a list: one JSON document with the response's fields and `more`, a line a message with jsonl, the names, or the
   * text when there is anything.
   */
  printList<D extends DescMessage>(
    name: string,
    desc: D,
    messages: readonly MessageShape<D>[],
    text: () => string,
    more?: Readonly<Record<string, unknown>>,
  ): void;
}

/** What an action of a verb returns: its exit code, or nothing for 0. */
export type Outcome = Promise<number | void>;

/** Runs the bodies of verbs for commander, and keeps what becomes of them. */
export class Verbs {
  readonly io: Io;
  /** Exit code of the verb that ran. */
  exitCode = 0;
  /** Coordinator that the verb spoke to. */
  url = DEFAULT_URL;
  /** Where the verb wrote to. */
  screen: Screen;
  constructor(io: Io) {
    this.io = io;
    this.screen = new Screen(io.stdout, io.stderr, {
      raw: false,
      quiet: false,
      colour: { stdout: false, stderr: false },
    });
  }
  /** An action for commander, which calls it with the operands, the options and the command. */
  action<A extends unknown[]>(body: (cli: Cli, ...args: A) => Outcome): (...args: [...A, Command]) => Promise<void> {
    return async (...args) => {
      const command = args.pop() as Command;
      const cli = createCli(this.io, command.optsWithGlobals<GlobalOptions>());
      this.url = cli.url;
      this.screen = cli.screen;
      try {
        this.exitCode = (await body(cli, ...(args as unknown as A))) ?? 0;
      } finally {
        cli.close();
      }
    };
  }
}

/** Checks the global options and makes what a verb works with. Nothing is connected before the first call. */
export function createCli(io: Io, options: GlobalOptions): Cli & { close(): void } {
  const url = coordinatorUrl(options.coordinatorUrl ?? io.env["AGENT_ORCHESTRATOR_API_URL"] ?? DEFAULT_URL);
  if (options.tlsCa !== undefined) trust(options.tlsCa);
  // An executor that calls `ao` speaks with the token of its run.
  const { runs, sessions, fleet, blueprints, link, close } = connect(url, {
    token: io.env["AGENT_ORCHESTRATOR_TOKEN"] || undefined,
    env: io.env,
  });
  const paint = painter(io, io.stdout, options.color);
  const paintTalk = painter(io, io.stderr, options.color);
  const screen = new Screen(io.stdout, io.stderr, {
    raw: options.raw ?? false,
    quiet: options.quiet ?? false,
    colour: { stdout: paint !== plain, stderr: paintTalk !== plain },
  });
  const print = (line: string): void => screen.print(line);
  const printJson = (value: unknown): void =>
    screen.printJson(JSON.stringify(value, undefined, options.output === "jsonl" ? 0 : 2));
  const printName = <D extends DescMessage>(desc: D, message: MessageShape<D>): void => {
    const name = nameOf(desc, message);
    if (name !== undefined) print(clean(name));
  };
  return {
    io,
    options,
    url,
    link,
    runs,
    sessions,
    fleet,
    blueprints,
    columns: columnsOf(io, io.stdout),
    paint,
    paintTalk,
    screen,
    print,
    say: (line) => screen.say(asTyped(line, io.env)),
    printJson,
    printMessage: (desc, message, text) => {
      if (options.output === "text") print(text());
      else if (options.output === "name") printName(desc, message);
      else printJson(json(desc, message));
    },
    printList: (name, desc, messages, text, more = {}) => {
      if (options.output === "text") return messages.length === 0 ? undefined : print(text());
      if (options.output === "name") return messages.forEach((message) => printName(desc, message));
      const list = messages.map((message) => listed(desc, message));
      if (options.output === "json") return printJson({ [name]: list, ...more });
      for (const item of list) printJson(item);
    },
    close,
  };
}

/** Protobuf JSON with the names of the .proto files, as the server prints it; fields are there when they are empty, too. */
export function json<D extends DescMessage>(desc: D, message: MessageShape<D>): JsonValue {
  return toJson(desc, message, { useProtoFieldName: true, alwaysEmitImplicit: true });
}

/** What lists leave out, and would be taken for empty. */
const ONLY_FROM_GET = ["prompt", "pending_reasons", "attempts", "notifications", "child_session_ids"];

function listed<D extends DescMessage>(desc: D, message: MessageShape<D>): unknown {
  const value = json(desc, message) as JsonObject;
  return Object.fromEntries(
    Object.entries(value).filter(
      ([key, field]) => !ONLY_FROM_GET.includes(key) || (field as { length: number }).length > 0,
    ),
  );
}

/** Fields that name what `-o name` prints; the first that a message has is its own. */
const NAMES = ["run_id", "session_id", "runner_id", "name"];

/** The name of a message; undefined for one that has none, such as a count. */
function nameOf<D extends DescMessage>(desc: D, message: MessageShape<D>): string | undefined {
  const value = json(desc, message) as JsonObject;
  return NAMES.map((name) => value[name]).find((name) => typeof name === "string");
}

/** Trusts the certificate authorities of a PEM file, besides those that the system trusts, in this whole process. */
function trust(path: string): void {
  try {
    setDefaultCACertificates([...getCACertificates("default"), readAuthorities(path)]);
  } catch (error) {
    if (error instanceof UsageError) throw usage(error.message);
    throw usage(`--tls-ca ${path} cannot be used: ${String(error)}`);
  }
}

function coordinatorUrl(text: string): string {
  const url = URL.parse(text);
  if (url === null || !["http:", "https:"].includes(url.protocol)) {
    throw usage(`the coordinator URL is not an http or https URL: ${text}`, `such as ${DEFAULT_URL}`);
  }
  return url.href.replace(/\/$/, "");
}

/** Columns that lines on a stream may take. A terminal that does not know its own counts as 80. */
export function columnsOf({ env }: Pick<Io, "env">, { isTTY, columns }: Sink): number {
  return isTTY === true ? columns || Number(env["COLUMNS"]) || 80 : Infinity;
}

/** Columns of a page that is read from top to bottom, such as help: those of the terminal, at most 100; 80 in a pipe. */
export function pageWidth(io: Pick<Io, "env">, sink: Sink): number {
  const columns = columnsOf(io, sink);
  return columns === Infinity ? 80 : Math.min(columns, 100);
}

/** Colour for a stream: as told, else on a terminal unless NO_COLOR is set (no-color.org). */
function painter(io: Io, sink: Sink, color: GlobalOptions["color"]): Paint {
  const auto = sink.isTTY === true && (io.env["NO_COLOR"] ?? "") === "" && io.env["TERM"] !== "dumb";
  return color === "always" || (color === "auto" && auto) ? ansi : plain;
}
