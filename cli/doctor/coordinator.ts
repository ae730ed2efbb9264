import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import { CreateRunRequestSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { Runner } from "../../gen/agentrunner/v1/runner_pb.ts";
import { Runner_Presence } from "../../gen/agentrunner/v1/runner_pb.ts";
import { Health } from "../../gen/grpc/health/v1/health_pb.ts";
import type { Page } from "../../lib/rpc/transport.ts";
import type { Cli } from "../cli.ts";
import type { Check } from "./check.ts";
import { cliError } from "../errors.ts";
import { duration } from "../text/format.ts";
import { pendingText, why } from "../text/runs.ts";
import { watchRun } from "../follow/watch.ts";

const PAGE_TIMEOUT_MS = 3_000;
/** Longest wait for the first message of a stream. */
const STREAM_TIMEOUT_MS = 5_000;
const STREAM_HELP = "a proxy on the way keeps it back: docs/guide/operating.md, Proxies, has configurations that work";
/** Longest time that an echo run may take. */
const ECHO_TIMEOUT_MS = 20_000;
/** Difference between two clocks that matters to no lease. A Date header has whole seconds. */
const SKEW_MAX_MS = 5_000;
const ECHO_PROFILE = "test-executor";

/** The coordinator answers, its store can be written, streams come through, and its clock agrees with ours. Returns whether it can be reached. */
export async function* coordinatorChecks(cli: Cli): AsyncGenerator<Check, boolean> {
  const start = performance.now();
  let health: Page;
  try {
    health = await cli.link.page("/health", PAGE_TIMEOUT_MS);
  } catch (error) {
    yield failed("coordinator", error, cli.url);
    return false;
  }
  const took = duration(performance.now() - start);
  if (health.status !== 200) {
    const help = "is that a coordinator? check the URL, and the log of what listens there";
    yield { name: "coordinator", status: "fail", detail: `${cli.url}/health answers ${health.status}`, help };
    return false;
  }
  yield { name: "coordinator", status: "pass", detail: `${cli.url} answers in ${took}` };
  yield await readyCheck(cli);
  yield await streamCheck(cli);
  yield skewCheck(health.headers.date, Date.now());
  return true;
}

/** The text for the error is the one that every verb prints. */
function failed(name: string, error: unknown, url: string): Check {
  const { message, hint } = cliError(error, url);
  return { name, status: "fail", detail: message, ...(hint !== undefined && { help: hint }) };
}

async function readyCheck(cli: Cli): Promise<Check> {
  try {
    const ready = await cli.link.page("/ready", PAGE_TIMEOUT_MS);
    if (ready.status === 200)
      return { name: "store", status: "pass", detail: "the coordinator is ready and its store writable" };
    const text = ready.text.trim().slice(0, 200);
    const help = "see the coordinator's log; a full disk or a lost volume are usual";
    return { name: "store", status: "fail", detail: `/ready answers ${ready.status}: ${text}`, help };
  } catch (error) {
    return failed("store", error, cli.url);
  }
}

/** The first message of a stream comes while the stream is open: runners wait for offers on one. */
async function streamCheck(cli: Cli): Promise<Check> {
  const name = "stream";
  const leave = new AbortController();
  const timer = setTimeout(() => leave.abort(), STREAM_TIMEOUT_MS);
  const start = performance.now();
  try {
    const health = createClient(Health, cli.link.transport);
    for await (const _ of health.watch({}, { signal: leave.signal })) {
      return { name, status: "pass", detail: `its first message comes in ${duration(performance.now() - start)}` };
    }
    return { name, status: "fail", detail: "a stream ends before its first message", help: STREAM_HELP };
  } catch (error) {
    if (!leave.signal.aborted) return failed(name, error, cli.url);
    const detail = `the first message of a stream does not come in ${duration(STREAM_TIMEOUT_MS)}: runners hear of no run`;
    return { name, status: "fail", detail, help: STREAM_HELP };
  } finally {
    clearTimeout(timer);
    leave.abort();
  }
}

/** Compares the Date header of a response, in whole seconds, with our clock. */
export function skewCheck(date: string | undefined, nowMs: number): Check {
  const name = "clock";
  const serverMs = date === undefined ? Number.NaN : Date.parse(date);
  if (Number.isNaN(serverMs)) return { name, status: "skip", detail: "the coordinator sends no Date header" };
  const skewMs = Math.abs(nowMs - serverMs);
  if (skewMs <= SKEW_MAX_MS) return { name, status: "pass", detail: "agrees with the coordinator's" };
  const help = "set the clocks by NTP; leases do not depend on them, but shown times do";
  return { name, status: "fail", detail: `differs from the coordinator's by ${duration(skewMs)}`, help };
}

/** Runners are online. Returns all of them; undefined when they cannot be listed. */
export async function* runnerChecks(cli: Cli): AsyncGenerator<Check, Runner[] | undefined> {
  const name = "runners";
  try {
    const { runners } = await cli.fleet.listRunners({ pageSize: 1000 });
    const online = runners.filter(isOnline);
    const profiles = [...new Set(online.map(({ executorProfile }) => executorProfile))].join(", ");
    yield online.length > 0
      ? { name, status: "pass", detail: `${online.length} of ${runners.length} online: ${profiles}` }
      : {
          name,
          status: "fail",
          detail: `none of ${runners.length} is online`,
          help: "start one: `agent-runner -x NAME`, or `ao dev`",
        };
    return runners;
  } catch (error) {
    yield failed(name, error, cli.url);
    return undefined;
  }
}

function isOnline({ presence }: Runner): boolean {
  return presence === Runner_Presence.ONLINE;
}

/** A run of the test executor goes the whole way and comes back. One that does not stays, to be looked at. */
export async function echoCheck(cli: Cli, runners: readonly Runner[] | undefined): Promise<Check> {
  const name = "echo run";
  const runner = runners?.find((it) => isOnline(it) && !it.draining && it.executorProfile === ECHO_PROFILE);
  if (runner === undefined) {
    return { name, status: "skip", detail: `no runner with profile ${ECHO_PROFILE} is online` };
  }
  try {
    return await echo(cli, runner);
  } catch (error) {
    return failed(name, error, cli.url);
  }
}

/** A check that passed leaves nothing in the history. Returns what is to be said when it does. */
async function forget(cli: Cli, sessionId: string): Promise<string> {
  try {
    await cli.sessions.deleteSession({ sessionId });
    return "";
  } catch (error) {
    return `; its session ${sessionId} stays in the history: ${cliError(error, cli.url).message}`;
  }
}

async function echo(cli: Cli, runner: Runner): Promise<Check> {
  const name = "echo run";
  const start = performance.now();
  const prompt = `ao doctor ${crypto.randomUUID()}`;
  const request = create(CreateRunRequestSchema, {
    requestId: crypto.randomUUID(),
    prompt,
    demands: { executorProfile: ECHO_PROFILE, tags: runner.requireMatchingTags ? runner.tags.slice(0, 1) : [] },
    timeout: durationFromMs(ECHO_TIMEOUT_MS),
    metadata: { made_by: "ao doctor" },
  });
  const { run } = await cli.runs.createRun(request);
  const runId = run?.runId ?? "";
  for await (const update of watchRun(cli, runId, AbortSignal.timeout(ECHO_TIMEOUT_MS))) {
    if (update.type !== "ended") continue;
    const { state, failure, message, result, runnerId } = update.run;
    const took = duration(performance.now() - start);
    if (state === RunState.COMPLETED && result?.text.includes(prompt)) {
      const left = await forget(cli, update.run.sessionId);
      return { name, status: "pass", detail: `completed in ${took} by ${runnerId}${left}` };
    }
    const said =
      state === RunState.COMPLETED ? "it completed without its echo" : why(failure, message) || "it was stopped";
    return { name, status: "fail", detail: `${runId}: ${said}`, help: `\`ao runs get ${runId}\` shows it` };
  }
  const { run: last } = await cli.runs.getRun({ runId });
  const reasons = pendingText(last?.pendingReasons ?? []);
  const { run: late } = await cli.runs.stopRun({ runId, reason: "ao doctor waited long enough" });
  const detail = `${late?.runId} did not end in ${duration(ECHO_TIMEOUT_MS)}${reasons === "" ? "" : `: ${reasons}`}`;
  return { name, status: "fail", detail, help: `\`ao runs logs --all ${runId}\` shows what happened` };
}
