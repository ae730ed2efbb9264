import type { Session } from "../../gen/agentrunner/v1/session_pb.ts";
import { SessionStatus, SessionStatusSchema } from "../../gen/agentrunner/v1/session_pb.ts";
import { fields, moment, objectText, styled } from "./fields.ts";
import type { Paint, Style } from "./format.ts";
import { ago, word } from "./format.ts";
import { table } from "./table.ts";
import type { Cell, Column } from "./table.ts";
import { wrap } from "../../lib/width.ts";

const STATUS_STYLES: Partial<Record<SessionStatus, Style>> = {
  [SessionStatus.RUNNING]: "cyan",
  [SessionStatus.STOPPING]: "yellow",
  [SessionStatus.IDLE]: "green",
  [SessionStatus.FAILED]: "red",
  [SessionStatus.STOPPED]: "yellow",
};

function statusCell(status: SessionStatus): Cell {
  const style = STATUS_STYLES[status];
  const text = word(SessionStatusSchema, status);
  return style === undefined ? text : [style, text];
}

const COLUMNS: readonly Column[] = [
  { title: "SESSION", ids: true, keep: 9 },
  { title: "STATUS", keep: 8 },
  { title: "NAME", min: 10, keep: 7 },
  { title: "LAST RUN", ids: true, keep: 5 },
  { title: "RUNNER", keep: 3 },
  { title: "UPDATED", keep: 6 },
];

/** `ao sessions`. */
export function sessionTable(sessions: readonly Session[], nowMs: number, paint: Paint, columns = Infinity): string {
  const rows = sessions.map((session): Cell[] => [
    session.sessionId,
    statusCell(session.status),
    session.sessionName === session.sessionId ? "-" : session.sessionName,
    session.activeRunId || session.lastRunId || "-",
    session.runnerId || "-",
    ago(session.updatedAt, nowMs),
  ]);
  return table(COLUMNS, rows, paint, columns);
}

/** `ao sessions get`. */
export function sessionPage(session: Session, nowMs: number, paint: Paint, columns = Infinity): string {
  const [style, status] = styled(statusCell(session.status));
  return [
    wrap(`${paint("bold", session.sessionId)}  ${paint(style, status)}`, columns, "  "),
    "",
    fields(
      [
        ["name", session.sessionName === session.sessionId ? "" : session.sessionName],
        ["agent", session.agentName],
        ["active run", session.activeRunId],
        ["last run", session.lastRunId],
        ["runner", session.runnerId],
        ["profile", session.executorProfile],
        ["directory", session.projectDir],
        ["executor's id", session.executorSessionId],
        ["parent", session.parentSessionId],
        ["created", moment(session.createdAt, nowMs)],
        ["updated", moment(session.updatedAt, nowMs)],
        ["metadata", objectText(session.metadata)],
      ],
      paint,
      columns,
    ),
  ].join("\n");
}
