import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { until } from "../../support/until.ts";
import { startModelStub } from "../../support/model-stub/index.ts";
import type { ModelStub } from "../../support/model-stub/index.ts";
import { call, Home, runUntil } from "../programs.ts";
import { AGENTS, installed, modelOf } from "./installed.ts";

/*
 * Real agents before a scripted model: nothing but the model is a stub. What each can do by itself, `ao executors check` sees.
 */

let home: Home;
let model: ModelStub;
beforeEach(async () => {
  home = new Home();
  model = await startModelStub();
});
afterEach(async () => {
  await home.close();
  await model.close();
});

const start = (name: string) =>
  `tool:start_agent_session:${JSON.stringify({
    session_name: name,
    prompt: `You are ${name}. <<text:${name.toUpperCase()} IS DONE>>`,
    mode: "async_callback",
    tags: ["late"],
  })}`;

interface Said {
  readonly run_id: string;
  readonly executor?: { readonly session?: { readonly executor_session_id: string } };
}

describe.each(AGENTS)("%s as a parent of two", (agent) => {
  it("is resumed in its own conversation by both, when coordinator and runner were killed in between", async ({
    skip,
  }) => {
    const where = installed(agent, skip);
    const env = { ...modelOf(agent, model), ...where };
    let coordinator = await home.coordinator();
    const flags = ["-x", agent, "--state-dir", home.path("state")];
    const runner = await home.runner(coordinator, flags, { env });
    const { url } = coordinator;
    const prompt = `Two helpers, please. [[${start("ada")}; ${start("bob")}; text:BOTH ARE ASKED]]`;
    const { run } = await call(url, "RunService/CreateRun", { session_name: "parent", prompt });
    const first = await runUntil(url, run.run_id, "COMPLETED");
    expect(first.result.text).toContain("BOTH ARE ASKED");

    await runner.end("SIGKILL");
    await coordinator.end("SIGKILL");
    coordinator = await home.coordinator([], coordinator.port);
    await home.runner(coordinator, [...flags, "--tag", "late"], { env });
    const runsOf = async (): Promise<{ run_id: string; state: string }[]> => {
      const { runs } = await call(url, "RunService/ListRuns", { session_id: run.session_id });
      return runs;
    };
    await until(async () => {
      const runs = await runsOf();
      return runs.length >= 2 && runs.every(({ state }) => state === "RUN_STATE_COMPLETED") && (await settled(url));
    }, "both children have called back, and the parent has answered");

    for (const name of ["ada", "bob"]) {
      const { session } = await call(url, "SessionService/GetSession", { session_name: name });
      const { result } = await call(url, "SessionService/GetSessionResult", { session_id: session.session_id });
      expect(result.text).toContain(`${name.toUpperCase()} IS DONE`);
    }
    const page = { session_id: run.session_id, page_size: 1000 };
    const { events } = (await call(url, "SessionService/ListSessionEvents", page)) as { events: Said[] };
    const ids = events.flatMap(({ executor }) => executor?.session?.executor_session_id ?? []);
    expect(new Set(ids).size, `one conversation: ${ids.join(", ")}`).toBe(1);
    const seen = new Set(events.filter(({ executor }) => executor?.session).map(({ run_id }) => run_id));
    expect(seen.size, "every run of the parent said it").toBe((await runsOf()).length);
    // What the model was sent last holds the whole conversation, the first prompt too.
    const last = model.requests.findLast(({ turns }) =>
      turns.some(({ texts }) => texts.join().includes("Two helpers")),
    );
    const told = last?.turns.flatMap(({ texts }) => texts).join("\n") ?? "";
    for (const name of ["ADA", "BOB"]) expect(told).toContain(`${name} IS DONE`);
  }, 300_000);
});

async function settled(url: string): Promise<boolean> {
  const { session } = await call(url, "SessionService/GetSession", { session_name: "parent" });
  const calls: { state?: string }[] = session.notifications ?? [];
  return session.status === "SESSION_STATUS_IDLE" && calls.every(({ state }) => !/WAITING|BOUND/.test(state ?? ""));
}
