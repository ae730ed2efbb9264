import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Bench, CheckSession, Order, Ran } from "./bench.ts";
import type { Declaration } from "./declaration.ts";
import { formed, promptText } from "./declaration.ts";
import { differences, snapshotOf } from "./home-snapshot.ts";
import type { Snapshot } from "./home-snapshot.ts";
import {
  completed,
  judgeExit,
  judgeHang,
  judgeHeaders,
  judgeHome,
  judgeLeft,
  judgeModelError,
  judgeExactPrompt,
  judgePrompt,
  judgeRefusal,
  judgeResume,
  judgeSession,
  judgeStart,
  judgeStop,
  judgeToolBackground,
  judgeToolCall,
  judgeToolStop,
} from "./judge.ts";
import type { FakeOrchestrator } from "./orchestrator.ts";
import { fail, POINTS, reportOf, skip } from "./points.ts";
import type { PointName, PointReport, Verdict } from "./points.ts";
import { awkward, dashed, doing, newWord, ofSize, saying } from "./prompts.ts";
import { shownSurvivor } from "./survivors.ts";
import type { Workspace } from "./workspace.ts";

/** Longest time of one run, of a run that has nothing to do with a model, and of the whole check. */
export interface CheckLimits {
  readonly runMs: number;
  readonly refusalMs: number;
  readonly totalMs: number;
}

export const LIMITS: CheckLimits = { runMs: 60_000, refusalMs: 20_000, totalMs: 20 * 60_000 };

/** Time from SIGTERM to SIGKILL of a stop that is to be graceful: that of a runner. */
const GRACE_MS = 10_000;

const PROMPT_BYTES = 1_000_000;

/** Time that the session may come after the model was asked. */
const SESSION_LATE_MS = 2_000;

export interface CheckOptions {
  readonly declaration: Declaration;
  /** True when the roster says that it drives an agent, so that a model has to be asked. */
  readonly isAgent: boolean;
  readonly lacks: Readonly<Record<string, string>>;
  /** Only these; all when empty. */
  readonly only: readonly PointName[];
  readonly limits: CheckLimits;
  readonly bench: Bench;
  readonly orchestrator: FakeOrchestrator;
  readonly workspace: Workspace;
  /** Aborted: no further run is begun. */
  readonly signal: AbortSignal;
}

/** Looks at one point after the other, and tells of each. */
export async function* check(options: CheckOptions): AsyncGenerator<PointReport> {
  const run = new CheckRun(options);
  const deadline = performance.now() + options.limits.totalMs;
  const wanted = POINTS.filter(({ name }) => options.only.length === 0 || options.only.includes(name));
  for (const point of wanted) {
    const begunAt = performance.now();
    const verdict = options.signal.aborted
      ? skip("the check was ended")
      : begunAt > deadline
        ? fail(`not looked at: the check is over after ${options.limits.totalMs / 60_000} min`)
        : await run.verdict(point.name);
    yield reportOf(point, verdict, options.lacks, performance.now() - begunAt);
  }
}

/** The first run, on which the other points build. */
interface First {
  readonly session: CheckSession;
  readonly word: string;
  readonly ran: Ran;
  /** Whether a model was asked. */
  readonly hasModel: boolean;
}

class CheckRun {
  readonly #options: CheckOptions;
  readonly #homeBefore: Snapshot;
  #first: Promise<First> | undefined;
  #silent: Promise<Ran> | undefined;
  #killed: Promise<{ session: CheckSession; ran: Ran }> | undefined;
  #tools: Promise<{ session: CheckSession; ran: Ran }> | undefined;

  constructor(options: CheckOptions) {
    this.#options = options;
    this.#homeBefore = snapshotOf(options.workspace.home);
  }

  async verdict(name: PointName): Promise<Verdict> {
    const needsStart = !["start", "bad-json", "eof", "nothing-left", "home-untouched"].includes(name);
    if (needsStart) {
      const { ran, hasModel } = await this.#started();
      if (completed(ran) !== undefined) return skip("start fails");
      const needsModel = POINTS.find((point) => point.name === name)?.needs === "model";
      if (needsModel && !hasModel) return skip("it asks no model");
    }
    return this.#look[name]();
  }

  /** By point, what is done and how it is judged. */
  readonly #look: Readonly<Record<PointName, () => Promise<Verdict>>> = {
    start: async () => {
      const { ran, word, hasModel } = await this.#started();
      if (!hasModel && this.#options.isAgent) return completed(ran) ?? fail("no request came to the model");
      return judgeStart(ran, hasModel ? word : undefined);
    },
    "session-early": async () => {
      const { ran, hasModel } = await this.#started();
      return judgeSession(hasModel ? await this.#whileSilent() : ran, hasModel);
    },
    exits: async () => judgeExit((await this.#started()).ran),
    resume: () => this.#resumed(this.#options.workspace.project),
    "resume-other-cwd": () => this.#resumed(this.#options.workspace.elsewhere),
    "bad-json": () => this.#refused('{"schema_version": "2.0", "mode": "start", '),
    eof: () => this.#refused(""),
    "prompt-exact": async () => {
      const prompt = awkward(newWord("exact"));
      const { hasModel } = await this.#started();
      return judgeExactPrompt(await this.#run({ prompt }), prompt, hasModel);
    },
    "prompt-1mb": () => this.#prompted(ofSize(PROMPT_BYTES, newWord("large"))),
    "prompt-dash": async () => {
      if (this.#options.declaration.prompt !== undefined) return skip("its prompts have a form of their own");
      return this.#prompted(dashed(newWord("dash")));
    },
    "model-401": () => this.#modelError("err:401"),
    "model-429": () => this.#modelError("err:429"),
    "model-529": () => this.#modelError("err:529"),
    "model-drop": () => this.#modelError("drop"),
    "model-silent": async () => judgeStop(await this.#whileSilent(), "a request to the model", { graceful: false }),
    "stop-graceful": async () => {
      const { hasModel } = await this.#started();
      const ran = hasModel ? await this.#whileSilent() : await this.#stopped({ graceMs: GRACE_MS });
      return judgeStop(ran, "the stop", { graceful: true });
    },
    "stop-forced": async () => judgeStop((await this.#killedRun()).ran, "the stop", { graceful: false }),
    "resume-after-kill": async () => this.#resumedAfterKill(),
    "result-then-hang": async () => judgeHang(await this.#hanging()),
    "tool-group": () => this.#toolStopped(),
    "tool-background": () => this.#toolLeft(),
    "mcp-child": async () => {
      const { session, ran } = await this.#usingTools();
      const headers = { "x-agent-session-id": session.sessionId };
      return judgeToolCall(ran, this.#options.orchestrator.calls, "start_agent_session", headers);
    },
    "mcp-headers": async () => {
      const { session, ran } = await this.#usingTools();
      return judgeHeaders(ran, this.#options.orchestrator.visits, blueprintHeaders(session));
    },
    "nothing-left": async () => {
      const { left, ended } = await this.#options.bench.leftovers();
      return judgeLeft(left, ended);
    },
    "home-untouched": async () => {
      await this.#options.bench.leftovers();
      return judgeHome(differences(this.#homeBefore, snapshotOf(this.#options.workspace.home)));
    },
  };

  #session(): CheckSession {
    return this.#options.bench.newSession();
  }

  #run(order: Pick<Order, "prompt"> & Partial<Order>): Promise<Ran> {
    const { bench, limits, declaration } = this.#options;
    return bench.run({
      session: this.#session(),
      timeoutMs: limits.runMs,
      ...order,
      prompt: formed(order.prompt, declaration.prompt),
    });
  }

  #started(): Promise<First> {
    return (this.#first ??= this.#start());
  }

  async #start(): Promise<First> {
    const [session, word] = [this.#session(), newWord("start")];
    const ran = await this.#run({ prompt: saying(word), session });
    return { session: namedBy(session, ran), word, ran, hasModel: ran.requests.length > 0 };
  }

  /** The model is asked and says nothing; then the run is stopped. */
  #whileSilent(): Promise<Ran> {
    return (this.#silent ??= this.#stopped({ graceMs: GRACE_MS }));
  }

  async #stopped(how: Omit<NonNullable<Order["stop"]>, "when">, session = this.#session()): Promise<Ran> {
    const { hasModel } = await this.#started();
    if (hasModel) {
      let askedAt: number | undefined;
      const when: NonNullable<Order["stop"]>["when"] = ({ requests, events }) => {
        if (requests.length === 0) return false;
        askedAt ??= performance.now();
        const hasSession = events.some(({ event }) => event.case === "session");
        return hasSession || performance.now() > askedAt + SESSION_LATE_MS;
      };
      return this.#run({ prompt: doing(["hang"], newWord("silent")), session, stop: { when, ...how } });
    }
    const { slow } = this.#options.declaration;
    if (slow === undefined)
      return this.#run({ prompt: saying(newWord("stop")), session, stop: { when: ({ started }) => started, ...how } });
    return this.#asDeclared(promptText(slow), { session, stop: { when: ({ events }) => events.length > 0, ...how } });
  }

  /** A prompt of the declaration has its form already. */
  #asDeclared(prompt: string, order: Partial<Order>): Promise<Ran> {
    const { bench, limits } = this.#options;
    return bench.run({ session: this.#session(), timeoutMs: limits.runMs, ...order, prompt });
  }

  #killedRun(): Promise<{ session: CheckSession; ran: Ran }> {
    return (this.#killed ??= (async () => {
      const session = this.#session();
      const ran = await this.#stopped({ graceMs: 0, unheard: true }, session);
      return { session: namedBy(session, ran), ran };
    })());
  }

  async #resumed(cwd: string): Promise<Verdict> {
    const { session, word, ran, hasModel } = await this.#started();
    const again = await this.#run({ prompt: saying(newWord("resume")), session, mode: "resume", cwd });
    return judgeResume(ran, again, hasModel ? word : undefined);
  }

  async #resumedAfterKill(): Promise<Verdict> {
    const { session, ran } = await this.#killedRun();
    if (!ran.stopped) return skip("it had ended before it was killed");
    const again = await this.#run({ prompt: saying(newWord("again")), session, mode: "resume" });
    return judgeResume(ran, again, undefined);
  }

  async #refused(stdin: string): Promise<Verdict> {
    return judgeRefusal(await this.#run({ prompt: "", stdin, timeoutMs: this.#options.limits.refusalMs }));
  }

  async #prompted(prompt: string): Promise<Verdict> {
    const { hasModel } = await this.#started();
    return judgePrompt(await this.#run({ prompt }), prompt, hasModel);
  }

  async #modelError(step: string): Promise<Verdict> {
    return judgeModelError(await this.#run({ prompt: doing([step], newWord("error")) }));
  }

  #hanging(): Promise<Ran> {
    const { hang } = this.#options.declaration;
    const order = { haltAtResult: true };
    return hang === undefined
      ? this.#run({ prompt: saying(newWord("hang")), ...order })
      : this.#asDeclared(promptText(hang), order);
  }

  async #toolStopped(): Promise<Verdict> {
    const { file, isThere } = this.#toolFile();
    const steps = [`bash:tail -f ${file}`];
    const stop = { when: isThere, graceMs: GRACE_MS };
    const ran = await this.#run({ prompt: doing(steps, newWord("tool")), stop });
    return judgeToolStop(ran, await leftOf(ran, file));
  }

  async #toolLeft(): Promise<Verdict> {
    const { file, isThere } = this.#toolFile();
    const steps = [`bash:(setsid tail -f ${file} </dev/null >/dev/null 2>&1 &) && echo begun`];
    let wasSeen = false;
    const watch: Order["watch"] = (progress) => (wasSeen ||= isThere(progress));
    const ran = await this.#run({ prompt: doing(steps, newWord("background")), watch });
    return judgeToolBackground(ran, wasSeen, await leftOf(ran, file));
  }

  /** A file that one tool process has on its command line. */
  #toolFile() {
    const file = join(this.#options.workspace.project, `${newWord("tail").toLowerCase()}.txt`);
    writeFileSync(file, "");
    const isThere: NonNullable<Order["stop"]>["when"] = (progress) =>
      progress.processes().some((command) => command.startsWith("tail ") && command.includes(file));
    return { file, isThere };
  }

  #usingTools(): Promise<{ session: CheckSession; ran: Ran }> {
    return (this.#tools ??= (async () => {
      const session = this.#session();
      const start = { prompt: "<<text:CHILD>>", mode: "async_callback" };
      const steps = [`tool:start_agent_session:${JSON.stringify(start)}`];
      const url = this.#options.orchestrator.blueprintUrl;
      const servers = { checks: { url, headers: blueprintHeaders(session) } };
      return { session, ran: await this.#run({ prompt: doing(steps, newWord("child")), session, servers }) };
    })());
  }
}

/** The processes of the tool that are left; what else a run leaves is another point. */
async function leftOf({ left }: Ran, file: string): Promise<string[]> {
  return (await left).filter(({ command }) => command.includes(file)).map(shownSurvivor);
}

function blueprintHeaders({ sessionId }: CheckSession): Record<string, string> {
  return { "x-agent-session-id": sessionId, authorization: "Bearer check-secret" };
}

/** The session with the id that the executor gave it. */
function namedBy(session: CheckSession, { outcome }: Ran): CheckSession {
  const { executorSessionId } = outcome;
  return executorSessionId === "" ? session : { ...session, executorSessionId };
}
