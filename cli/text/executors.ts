import { wrap } from "../../lib/width.ts";
import type { PointReport } from "../conformance.ts";
import type { ExecutorList } from "../programs.ts";
import { clean } from "./format.ts";
import type { Paint, Style } from "./format.ts";
import { table } from "./table.ts";

/** A row of `ao executors ls`. */
export interface ExecutorRow {
  readonly name: string;
  /** `executor`: a program that runs start. `agent`: what one of them drives. */
  readonly kind: "executor" | "agent";
  /** Program; of an agent that is not installed, empty. */
  readonly path: string;
  /** Where it is from: `package`, a folder of executors, or the executor that drives the agent. */
  readonly source: string;
  readonly installed: boolean;
  /** The command that installs it; empty when it is installed. */
  readonly install: string;
}

/** The executors first, then the agents. */
export function executorRows({ executors }: Pick<ExecutorList, "executors">, packageDir: string): ExecutorRow[] {
  const rows = executors.map(({ name, path, source, agent }): ExecutorRow => {
    if (agent === undefined) {
      const from = source === packageDir ? "package" : source;
      return { name, kind: "executor", path, source: from, installed: true, install: "" };
    }
    const driver = executors.find((one) => one.path === path && one.agent === undefined)?.name ?? path;
    const installed = agent.program !== undefined;
    const install = installed ? "" : agent.install;
    return { name, kind: "agent", path: agent.program ?? "", source: `by ${driver}`, installed, install };
  });
  return [...rows.filter(({ kind }) => kind === "executor"), ...rows.filter(({ kind }) => kind === "agent")];
}

/** The executors and agents, a line each. */
export function executorTable(executors: readonly ExecutorRow[], paint: Paint, columns: number): string {
  return table(
    [
      { title: "NAME", ids: true, keep: 9 },
      { title: "KIND", keep: 8 },
      { title: "INSTALLED", keep: 7 },
      { title: "SOURCE", min: 10, keep: 4 },
      { title: "PATH", min: 16, keep: 5, shows: "end" },
    ],
    executors.map(({ name, kind, installed, source, path }) => [
      name,
      kind,
      installed ? ["green", "yes"] : ["yellow", "no"],
      source,
      path,
    ]),
    paint,
    columns,
  );
}

const STYLES: Readonly<Record<PointReport["status"], Style>> = { pass: "green", fail: "red", skip: "yellow" };

/** Columns before what was seen. */
const INDENT = 25;

/** `PASS  start              1 request to the model …`; a failure that is known says why. */
export function pointText({ name, title, status, detail, known }: PointReport, paint: Paint, columns: number): string {
  const seen = status === "fail" ? `${title}: no. ${detail}` : detail;
  const why = known === "" ? "" : ` (known: ${known})`;
  const style = known === "" ? STYLES[status] : "yellow";
  const head = `${paint(style, status.toUpperCase())}  ${name.padEnd(INDENT - 7)} ${clean(seen + why)}`;
  return wrap(head, columns, " ".repeat(INDENT));
}

/** `22 passed, 1 failed, 1 known to fail, 8 skipped`, without what is none. */
export function totals(points: readonly PointReport[]): string {
  const count = (is: (point: PointReport) => boolean, what: string) => {
    const n = points.filter(is).length;
    return n === 0 ? [] : [`${n} ${what}`];
  };
  return [
    ...count(({ status }) => status === "pass", "passed"),
    ...count(({ status, known }) => status === "fail" && known === "", "failed"),
    ...count(({ status, known }) => status === "fail" && known !== "", "known to fail"),
    ...count(({ status }) => status === "skip", "skipped"),
  ].join(", ");
}
