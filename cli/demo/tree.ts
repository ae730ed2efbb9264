import { setTimeout as delay } from "node:timers/promises";
import { relative } from "node:path";
import { inPackage } from "../../lib/package-root.ts";
import { Notification_State, SessionStatus } from "../../gen/agentrunner/v1/session_pb.ts";
import type { Session } from "../../gen/agentrunner/v1/session_pb.ts";
import { expect } from "./context.ts";
import type { DemoContext } from "./context.ts";

const PLAN = inPackage("examples/tree.json");
const ROOT = "release";
/** Sessions of the plan below the root, and below its review. */
const CHILDREN = 4;
const GRANDCHILDREN = 2;

/** The last part: an agent starts agents on other runners, is resumed when they have ended, and starts more. */
export async function showTree(context: DemoContext, startRunner: (tag: string) => Promise<void>): Promise<void> {
  const { say, ao, paint } = context;
  say(`\n${paint("bold", "An agent that starts agents, and is resumed with what they found")}`);
  await Promise.all([startRunner("linux"), startRunner("gpu")]);
  say("  two more runners are up, with the tags linux and gpu and an agent that follows a script");
  await ao(["start", ROOT, "--tag", "linux", "--prompt-file", relative(process.cwd(), PLAN)], 0);
  const root = await untilDone(context);
  await ao(["runs", "get", root.notifications[0]?.runId ?? ""], 0);
  await ao(["sessions", "result", ROOT], 0);
  const tree = await ao(["sessions", "tree", ROOT], 0);
  await verify(context, root, tree);
}

/** Waits until nothing of the tree is at work: the root has completed and been told of each child. */
async function untilDone({ sessions }: DemoContext): Promise<Session> {
  for (;;) {
    const { session } = await sessions.getSession({ sessionName: ROOT });
    if (session !== undefined && session.activeRunId === "" && session.notifications.length === CHILDREN)
      return session;
    await delay(20);
  }
}

/** Each callback was part of exactly one run, and two kinds of runners took part. */
async function verify({ sessions }: DemoContext, root: Session, tree: string): Promise<void> {
  const { session: review } = await sessions.getSession({ sessionName: "review" });
  const told = [...root.notifications, ...(review?.notifications ?? [])];
  expect(told.length === CHILDREN + GRANDCHILDREN, `${told.length} callbacks were made`);
  const once = told.every(({ state, deliveries }) => state === Notification_State.CONSUMED && deliveries === 1);
  expect(once, "every callback is delivered once");
  expect(root.status === SessionStatus.IDLE, "the root has completed");
  expect(root.runnerId !== review?.runnerId, "the review was on the other runner");
  expect(tree.trimEnd().split("\n").length === 1 + told.length, "the tree shows every session");
}
