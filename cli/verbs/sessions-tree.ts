import { SessionStatusSchema, SessionSchema, Notification_State } from "../../gen/agentrunner/v1/session_pb.ts";
import type { Session } from "../../gen/agentrunner/v1/session_pb.ts";
import type { Command } from "commander";
import type { Cli, Verbs } from "../cli.ts";
import { present } from "../errors.ts";
import { clean, word } from "../text/format.ts";
import { shortId } from "../text/table.ts";
import { fit, width } from "../../lib/width.ts";
import { SESSION_OPERAND, sessionIdOf } from "../refs.ts";

/** Sessions that one tree shows; below a session that is left out a line says so. */
const MAX_SESSIONS = 1000;

/** A session and the sessions that its agent started, oldest first. */
export interface SessionTree {
  readonly session: Session;
  readonly children: readonly SessionTree[];
  /** Children that are not shown. */
  readonly hidden: number;
}

/** `ao sessions tree SESSION`. */
export function addTree(sessions: Command, verbs: Verbs): void {
  sessions
    .command("tree")
    .argument("<session>", SESSION_OPERAND)
    .description("a session and every session below it")
    .addHelpText("after", "\nExample:\n  ao sessions tree hello")
    .action(
      verbs.action(async (cli, name: string) => {
        const tree = await readTree(cli, await sessionIdOf(cli, name), { left: MAX_SESSIONS });
        cli.printList("sessions", SessionSchema, flat(tree), () => treeText(tree, cli.columns));
      }),
    );
}

async function readTree(cli: Cli, sessionId: string, budget: { left: number }): Promise<SessionTree> {
  budget.left -= 1;
  const session = present((await cli.sessions.getSession({ sessionId })).session, "session");
  const children: SessionTree[] = [];
  for (const childId of session.childSessionIds) {
    if (budget.left > 0) children.push(await readTree(cli, childId, budget));
  }
  return { session, children, hidden: session.childSessionIds.length - children.length };
}

function flat({ session, children }: SessionTree): Session[] {
  return [session, ...children.flatMap(flat)];
}

/** The tree with its lines drawn: id, name, status and what is still to be told. Ids are cut when it is too wide, then its lines. */
export function treeText(tree: SessionTree, columns = Infinity): string {
  const whole = lines(tree, (id) => id);
  if (whole.every((line) => width(line) <= columns)) return whole.join("\n");
  return lines(tree, shortId)
    .map((line) => fit(line, columns))
    .join("\n");
}

function lines({ session, children, hidden }: SessionTree, idText: (id: string) => string): string[] {
  const below = children.map((child) => lines(child, idText));
  if (hidden > 0) below.push([`… ${hidden} more`]);
  const drawn = below.flatMap((block, i) => {
    const last = i === below.length - 1;
    return block.map((line, row) => (row === 0 ? (last ? "└─ " : "├─ ") : last ? "   " : "│  ") + line);
  });
  return [lineOf(session, idText), ...drawn];
}

function lineOf(session: Session, idText: (id: string) => string): string {
  const name = session.sessionName === session.sessionId ? "" : `  ${clean(session.sessionName)}`;
  const agent = session.agentName === "" ? "" : `  (${clean(session.agentName)})`;
  const waiting = session.notifications.filter(({ state }) => state === Notification_State.WAITING).length;
  const notes = [
    ...(session.callbackOwed ? ["its end is still to be told"] : []),
    ...(waiting === 0 ? [] : [`${waiting} ${waiting === 1 ? "callback waits" : "callbacks wait"}`]),
  ];
  const status = word(SessionStatusSchema, session.status);
  return `${idText(session.sessionId)}${name}${agent}  ${status}${notes.length === 0 ? "" : ` — ${notes.join(", ")}`}`;
}
