import { durationMs } from "@bufbuild/protobuf/wkt";
import type { Runner } from "../../gen/agentrunner/v1/runner_pb.ts";
import { Runner_Presence, Runner_PresenceSchema } from "../../gen/agentrunner/v1/runner_pb.ts";
import { fields, moment, styled } from "./fields.ts";
import type { Paint } from "./format.ts";
import { ago, duration, word } from "./format.ts";
import { table } from "./table.ts";
import type { Cell, Column } from "./table.ts";
import { wrap } from "../../lib/width.ts";

const COLUMNS: readonly Column[] = [
  { title: "RUNNER", keep: 9 },
  { title: "STATE", min: 8, keep: 8 },
  { title: "RUNS", keep: 7 },
  { title: "PROFILE", min: 14, keep: 6 },
  { title: "HOST", min: 10, keep: 4 },
  { title: "DIRECTORY", min: 20, keep: 3, shows: "end" },
  { title: "TAGS", min: 8, keep: 5 },
  { title: "HEARD", keep: 2 },
  { title: "NAME", min: 8, keep: 1 },
];

/** `ao runners`. */
export function runnerTable(runners: readonly Runner[], nowMs: number, paint: Paint, columns = Infinity): string {
  const rows = runners.map((runner): Cell[] => [
    runner.runnerId,
    presenceCell(runner),
    `${runner.activeRuns}/${runner.maxConcurrentRuns}`,
    runner.executorProfile,
    runner.hostname,
    runner.projectDir,
    runner.tags.join(", ") || "-",
    ago(runner.lastHeardAt, nowMs),
    runner.name,
  ]);
  return table(COLUMNS, rows, paint, columns);
}

function presenceCell(runner: Runner): Cell {
  const resting = !runner.draining && runner.freeSlots === 0 && runner.activeRuns < runner.maxConcurrentRuns;
  const more = runner.draining ? ", draining" : resting ? ", takes no more for now" : "";
  const text = word(Runner_PresenceSchema, runner.presence) + more;
  if (runner.presence !== Runner_Presence.ONLINE) return ["red", text];
  return [more === "" ? "green" : "yellow", text];
}

/** How many runs it has, and how many fewer it takes than it could. */
function load({ activeRuns, maxConcurrentRuns, freeSlots, draining }: Runner): string {
  const withheld = draining || freeSlots === undefined ? 0 : maxConcurrentRuns - activeRuns - freeSlots;
  return `${activeRuns} of at most ${maxConcurrentRuns}${withheld > 0 ? `; takes ${freeSlots} more for now` : ""}`;
}

/** `ao runners get`. */
export function runnerPage(runner: Runner, nowMs: number, paint: Paint, columns = Infinity): string {
  const [style, presence] = styled(presenceCell(runner));
  const { executor, eventLoopLag } = runner;
  return [
    wrap(`${paint("bold", runner.runnerId)}  ${paint(style, presence)}`, columns, "  "),
    "",
    fields(
      [
        ["name", runner.name],
        ["runs", load(runner)],
        ["profile", runner.executorProfile],
        ["executor", [executor?.type, executor?.command].filter(Boolean).join("  ")],
        ["portable", executor?.portable === true ? "yes: sessions can move to another runner of the profile" : ""],
        ["host", runner.hostname],
        ["directory", runner.projectDir],
        ["tags", runner.tags.join(", ") + (runner.requireMatchingTags ? " (a run must name one)" : "")],
        ["registered", moment(runner.registeredAt, nowMs)],
        ["heard", moment(runner.lastHeardAt, nowMs)],
        ["loop lag", eventLoopLag === undefined ? "" : duration(durationMs(eventLoopLag))],
        ["boot", runner.bootId],
      ],
      paint,
      columns,
    ),
  ].join("\n");
}
