import type { Notification, Session } from "../../gen/agentrunner/v1/session_pb.ts";
import {
  Notification_State,
  Notification_StateSchema,
  SessionStatus,
  SessionStatusSchema,
} from "../../gen/agentrunner/v1/session_pb.ts";
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
  const lines = [
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
  ];
  if (session.childSessionIds.length > 0) lines.push("", childTable(session, nowMs, paint, columns));
  return lines.join("\n");
}

const CHILD_COLUMNS: readonly Column[] = [
  { title: "CHILD", keep: 9, ids: true },
  { title: "CALLBACK", keep: 8 },
  { title: "OF RUN", keep: 6, ids: true },
  { title: "TOLD BY", keep: 7, ids: true },
  { title: "SETTLED", keep: 5 },
];

/** Rows of a page about one session; the newest, because they are what somebody asks for. */
const MAX_ROWS = 50;

/** A line for every callback, and for every child that has made none. */
function childTable(session: Session, nowMs: number, paint: Paint, columns: number): string {
  const { notifications, childSessionIds } = session;
  const told = new Set(notifications.map(({ childSessionId }) => childSessionId));
  const rows = [
    ...childSessionIds.filter((id) => !told.has(id)).map((id): Cell[] => [id, "-"]),
    ...notifications.map((notification) => notificationRow(notification, nowMs)),
  ];
  const hidden = rows.length - MAX_ROWS;
  const lines = [table(CHILD_COLUMNS, rows.slice(-MAX_ROWS), paint, columns)];
  if (hidden > 0) lines.push(paint("dim", `… and ${hidden} older; -o json has them`));
  return lines.join("\n");
}

function notificationRow(notification: Notification, nowMs: number): Cell[] {
  const { childSessionId, childRunId, state, runId, deliveries, createdAt } = notification;
  const style = NOTIFICATION_STYLES[state];
  const text = `${word(Notification_StateSchema, state)}${deliveries > 1 ? `, told ${deliveries} times` : ""}`;
  return [childSessionId, style === undefined ? text : [style, text], childRunId, runId || "-", ago(createdAt, nowMs)];
}

const NOTIFICATION_STYLES: Partial<Record<Notification_State, Style>> = {
  [Notification_State.WAITING]: "yellow",
  [Notification_State.BOUND]: "cyan",
  [Notification_State.CONSUMED]: "green",
  [Notification_State.GIVEN_UP]: "red",
};
