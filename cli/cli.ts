import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { toJson } from "@bufbuild/protobuf";
import type { Command } from "commander";
import type { Readable } from "node:stream";
import { getCACertificates, setDefaultCACertificates } from "node:tls";
import { connect } from "../client/connect.ts";
import type { Services } from "../client/connect.ts";
import { readAuthorities } from "../lib/config/authorities.ts";
import { UsageError } from "../lib/config/config.ts";
import { usage } from "./errors.ts";
import type { Paint } from "./text/format.ts";
import { ansi, plain } from "./text/format.ts";

/** A place that text is written to: a part of `NodeJS.WriteStream`. */
export interface Sink {
  readonly isTTY?: boolean | undefined;
  write(text: string): unknown;
}

/** Everything that a verb touches of its process, so that tests can stand in for it. */
export interface Io {
  readonly stdin: Readable;
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
  readonly output: "text" | "json" | "jsonl";
  readonly color: "auto" | "always" | "never";
  readonly verbose?: true;
}

/** Coordinator that is meant when nobody names one. */
export const DEFAULT_URL = "http://localhost:8765";

/** What a verb works with: the services, and the two streams. stdout is data, stderr is talk. */
export interface Cli extends Services {
  readonly io: Io;
  readonly options: GlobalOptions;
  readonly url: string;
  /** Paints for stdout. */
  readonly paint: Paint;
  /** Paints for stderr. */
  readonly paintTalk: Paint;
  /** Writes a line of data. */
  print(line: string): void;
  /** Writes a line of talk. */
  say(line: string): void;
  /** Prints one message: JSON, or the text that `text` makes. */
  printMessage<D extends DescMessage>(desc: D, message: MessageShape<D>, text: () => string): void;
  /** Prints a list: one JSON document with the response's fields, a line a message with jsonl, or the text. */
  printList<D extends DescMessage>(name: string, desc: D, messages: MessageShape<D>[], text: () => string): void;
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
  constructor(io: Io) {
    this.io = io;
  }
  /** An action for commander, which calls it with the operands, the options and the command. */
  action<A extends unknown[]>(body: (cli: Cli, ...args: A) => Outcome): (...args: [...A, Command]) => Promise<void> {
    return async (...args) => {
      const command = args.pop() as Command;
      const cli = createCli(this.io, command.optsWithGlobals<GlobalOptions>());
      this.url = cli.url;
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
  const { runs, sessions, fleet, blueprints, close } = connect(url, {
    token: io.env["AGENT_ORCHESTRATOR_TOKEN"] || undefined,
  });
  const print = (line: string): void => void io.stdout.write(`${line}\n`);
  const paint = painter(io, io.stdout, options.color);
  return {
    io,
    options,
    url,
    runs,
    sessions,
    fleet,
    blueprints,
    paint,
    paintTalk: painter(io, io.stderr, options.color),
    print,
    say: (line) => void io.stderr.write(`${line}\n`),
    printMessage: (desc, message, text) => {
      if (options.output === "text") print(text());
      else print(JSON.stringify(json(desc, message), undefined, options.output === "json" ? 2 : 0));
    },
    printList: (name, desc, messages, text) => {
      if (options.output === "text") return messages.length === 0 ? undefined : print(text());
      const list = messages.map((message) => json(desc, message));
      if (options.output === "json") return print(JSON.stringify({ [name]: list }, undefined, 2));
      for (const item of list) print(JSON.stringify(item));
    },
    close,
  };
}

/** Protobuf JSON with the names of the .proto files, as the server prints it. */
export function json<D extends DescMessage>(desc: D, message: MessageShape<D>): unknown {
  return toJson(desc, message, { useProtoFieldName: true });
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

/** Colour for a stream: as told, else on a terminal unless NO_COLOR is set (no-color.org). */
function painter(io: Io, sink: Sink, color: GlobalOptions["color"]): Paint {
  const auto = sink.isTTY === true && (io.env["NO_COLOR"] ?? "") === "" && io.env["TERM"] !== "dumb";
  return color === "always" || (color === "auto" && auto) ? ansi : plain;
}
