import { TerminalFilter, forTerminal, jsonForTerminal } from "./text/terminal.ts";

/** A place that text is written to: a part of `NodeJS.WriteStream`. */
export interface Sink {
  readonly isTTY?: boolean | undefined;
  /** Columns of a terminal. */
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

/** How the screen treats what it is given. */
export interface ScreenOptions {
  /** Terminals get what programs print as it is. */
  readonly raw: boolean;
  /** Whether a stream takes colours. */
  readonly colour: { readonly stdout: boolean; readonly stderr: boolean };
  /** No talk. */
  readonly quiet: boolean;
}

/**
 * The two streams of `ao`: stdout is data, stderr is talk. A terminal gets text and colours alone, a pipe every byte. A line
 * of output that is still open is ended before a line that would stand on the same terminal.
 */
export class Screen {
  readonly #stdout: Sink;
  readonly #stderr: Sink;
  readonly #options: ScreenOptions;
  /** By stream of the program that `#origin` names. */
  readonly #filters = new Map<string, TerminalFilter>();
  #origin = "";
  /** Who has printed the line that is open. */
  #open: { readonly origin: string; readonly stream: string } | undefined;

  constructor(stdout: Sink, stderr: Sink, options: ScreenOptions) {
    this.#stdout = stdout;
    this.#stderr = stderr;
    this.#options = options;
  }

  /** Writes a line of data. */
  print(line: string): void {
    this.endLine();
    this.#stdout.write(`${this.#safe(this.#stdout, line)}\n`);
  }

  /** Writes a line of JSON to stdout. */
  printJson(json: string): void {
    this.endLine();
    this.#stdout.write(`${this.#guards(this.#stdout) ? jsonForTerminal(json) : json}\n`);
  }

  /** Writes a line of talk. */
  say(line: string): void {
    if (!this.#options.quiet) this.complain(line);
  }

  /** Writes a line to stderr that is said in any case. */
  complain(line: string): void {
    if (this.#stdout.isTTY === true && this.#stderr.isTTY === true) this.endLine();
    this.#stderr.write(`${this.#safe(this.#stderr, line)}\n`);
  }

  /**
   * Writes what a program printed, as it comes; what another stream prints into an open line begins a line of its own, but with
   * `raw`. A sequence may be split over the chunks of one `stream` of one `origin`;
   * `style` puts colour on what is left.
   */
  output(origin: string, stream: string, text: string, style: (text: string) => string): void {
    const shown = this.#guards(this.#stdout) ? this.#filter(origin, stream).write(text) : text;
    if (shown === "") return;
    const continues = this.#open?.origin === origin && this.#open.stream === stream;
    if (!continues && !this.#options.raw) this.#closeLine();
    this.#stdout.write(style(shown));
    this.#open = shown.endsWith("\n") ? undefined : { origin, stream };
  }

  /** Ends an open line of output, and the colours in it. */
  endLine(): void {
    for (const filter of this.#filters.values()) {
      const reset = filter.pause();
      if (reset !== "") this.#stdout.write(reset);
    }
    this.#closeLine();
  }

  #closeLine(): void {
    if (this.#open === undefined) return;
    const reset = this.#filters.get(this.#open.stream)?.pause() ?? "";
    this.#stdout.write(`${reset}\n`);
    this.#open = undefined;
  }

  #filter(origin: string, stream: string): TerminalFilter {
    if (origin !== this.#origin) {
      this.endLine();
      this.#filters.clear();
      this.#origin = origin;
    }
    const filter = this.#filters.get(stream) ?? new TerminalFilter(this.#options.colour.stdout);
    this.#filters.set(stream, filter);
    return filter;
  }

  #safe(sink: Sink, text: string): string {
    if (!this.#guards(sink)) return text;
    const { colour } = this.#options;
    return forTerminal(text, sink === this.#stdout ? colour.stdout : colour.stderr);
  }

  #guards(sink: Sink): boolean {
    return sink.isTTY === true && !this.#options.raw;
  }
}
