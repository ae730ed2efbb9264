import { afterEach, beforeEach, expect, it } from "vitest";
import { until } from "../support/until.ts";
import { Home, call } from "./programs.ts";

let home: Home;
beforeEach(() => (home = new Home()));
afterEach(() => home.close());

/** Works long enough for who starts it to end its turn first. */
const leaf = (result: string) => ({ sleep: 0.4, result });

/** Three children on two kinds of runners; when all have called back, a fourth with two grandchildren; then done. */
const PLAN = {
  say: "I ask three others.",
  start: [
    { name: "read", tags: ["alpha"], prompt: leaf("read it") },
    { name: "count", tags: ["beta"], prompt: leaf("counted it") },
    { name: "doubt", tags: ["beta"], prompt: { fail: "it cannot be" } },
  ],
  afterwards: {
    start: [
      {
        name: "review",
        tags: ["beta"],
        prompt: {
          start: [
            { name: "grammar", tags: ["alpha"], prompt: leaf("fine") },
            { name: "facts", tags: ["beta"], prompt: leaf("wrong") },
          ],
          afterwards: { result: "reviewed" },
        },
      },
    ],
    afterwards: { result: "all done" },
  },
};

async function getSession(url: string, name: string): Promise<any> {
  return (await call(url, "SessionService/GetSession", { session_name: name })).session;
}

async function runsOf(url: string, sessionId: string): Promise<any[]> {
  const { runs } = await call(url, "RunService/ListRuns", { session_id: sessionId });
  const whole = runs.map(({ run_id }: any) => call(url, "RunService/GetRun", { run_id }));
  return (await Promise.all(whole)).map(({ run }) => run).toReversed();
}

it(
  "an agent starts agents on other runners, is resumed with what they found, starts more, and is done",
  { timeout: 60_000 },
  async () => {
    const coordinator = await home.coordinator();
    const { url } = coordinator;
    const runner = (name: string) =>
      home.runner(coordinator, ["--executor", "script-agent", "--name", name, "--tag", name]);
    const [alpha, beta] = [await runner("alpha"), await runner("beta")];
    const env = { AGENT_ORCHESTRATOR_API_URL: url };
    const started = await home.run("ao", ["start", "plan", "--tag", "alpha", "--prompt", JSON.stringify(PLAN)], {
      env,
    });
    expect(started).toMatchObject({ code: 0 });

    const settled = async () => {
      const { active_run_id, notifications } = await getSession(url, "plan");
      return active_run_id === undefined && notifications?.length === 4;
    };
    await until(settled, "nothing of the tree is at work", 100_000);
    const { session_id } = await getSession(url, "plan");
    const [last] = (await runsOf(url, session_id)).slice(-1);
    expect(last).toMatchObject({ state: "RUN_STATE_COMPLETED", result: { text: "all done" } });

    const tree = await home.run("ao", ["sessions", "tree", "plan"], { env });
    expect(tree.stdout.replaceAll(/ses_\w+/g, "ses")).toBe(
      [
        "ses  plan  idle",
        "├─ ses  read  idle",
        "├─ ses  count  idle",
        "├─ ses  doubt  failed",
        "└─ ses  review  idle",
        "   ├─ ses  grammar  idle",
        "   └─ ses  facts  idle",
        "",
      ].join("\n"),
    );

    const places = { plan: alpha, read: alpha, count: beta, doubt: beta, review: beta, grammar: alpha, facts: beta };
    for (const [name, { runnerId }] of Object.entries(places)) {
      const { session_id, runner_id } = await getSession(url, name);
      const runs = await runsOf(url, session_id);
      expect(new Set(runs.map((run) => run.runner_id)), `${name} ran, and was resumed, where its tag is`).toEqual(
        new Set([runnerId]),
      );
      expect(runner_id, `the files of ${name}`).toBe(runnerId);
    }

    for (const [name, children] of [
      ["plan", ["read", "count", "doubt", "review"]],
      ["review", ["grammar", "facts"]],
    ] as const) {
      const parent = await getSession(url, name);
      const runs = await runsOf(url, parent.session_id);
      expect(parent.notifications).toHaveLength(children.length);
      for (const child of children) {
        const { session_id } = await getSession(url, child);
        const told = parent.notifications.filter((one: any) => one.child_session_id === session_id);
        expect(told, child).toMatchObject([{ state: "STATE_CONSUMED", deliveries: 1 }]);
        const delivering = runs.filter(({ callback }) => callback?.child_session_ids.includes(session_id));
        expect(delivering, `runs that deliver ${child}`).toMatchObject([{ run_id: told[0].run_id }]);
      }
    }

    const plan = await getSession(url, "plan");
    const prompts = (await runsOf(url, plan.session_id)).map(({ prompt }) => prompt).join("\n");
    expect(prompts).toContain('name="doubt"');
    expect(prompts).toContain('status="failed" failure="executor_exit"');
    expect(prompts).toContain("it cannot be");
    expect(prompts).toContain("reviewed");
    expect(prompts, "what the review said before its own children had called back").not.toContain("2 started");
  },
);
