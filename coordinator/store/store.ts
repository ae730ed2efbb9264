import type { ClockNote } from "../../lib/clock-note.ts";
import type { JsonObject } from "@bufbuild/protobuf";
import type { AgentBlueprint, AgentHooks } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import type { ExecutorInvocation } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { CreateRunRequest } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { Run, RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { Directive, HeldLease, LeaseVerdict, Runner } from "../../gen/agentrunner/v1/runner_pb.ts";
import type {
  EventBatch,
  EventBatchVerdict,
  RegisterRequest,
  Report,
  ReportVerdict,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Session, SessionEvent, SessionStatus } from "../../gen/agentrunner/v1/session_pb.ts";
import type { UpdateSessionRequest } from "../../gen/agentrunner/v1/session_service_pb.ts";
import type { RunnerFacts, Requirements } from "../core/match.ts";
import type { Stop } from "../core/run-transitions.ts";
import type { Changes } from "./changes.ts";
import type { EventCursors } from "./event-cursors.ts";
import { Refusal } from "./refusal.ts";

export type { Changes };
export { Refusal };

/** How far a tree of sessions may grow. */
export interface TreeLimits {
  /** Sessions above a session; a person's own has none. */
  readonly maxDepth: number;
  /** Child sessions of one session that have a run that is active or pending. */
  readonly maxChildren: number;
}

/** An agent blueprint, and what of the run's parameters does not fit its schema; undefined when nobody had to look. */
export interface JudgedAgent {
  readonly blueprint: AgentBlueprint;
  readonly violations: readonly string[] | undefined;
}

/** Of the reports of a batch that have data for an `output_schema`: what does not fit it. */
export type ResultViolations = ReadonlyMap<Report, readonly string[]>;

/**
 * The agent blueprint that a new run would be made with; or why there is none, which the store throws when it
 * comes to that: a repeated request gets its run whatever became of its blueprint. Undefined when no agent is meant.
 */
export type AgentLookup = JudgedAgent | Refusal | undefined;

/** A committed command: its value, and what the outside has to be told. */
export interface Committed<T> {
  readonly value: T;
  readonly changes: Changes;
}

export interface Page<T> {
  readonly items: T[];
  /** Token of the next page; empty on the last. */
  readonly next: string;
}

/** A run, and what says why it is still pending. */
export interface FoundRun {
  readonly run: Run;
  /** Set while the run is the first of its session that has not ended. */
  readonly requirements: Requirements | undefined;
  /** Earlier run of the same session that it waits for. */
  readonly waitsFor: string | undefined;
  /** Why runners refused it, a `lnch_…: reason` each. */
  readonly refusals: readonly string[];
  /** Start of its no-match clock, in milliseconds; undefined while a runner suits it. */
  readonly unmatchedSince: number | undefined;
}

/** An offer to send. The lease and what it is for. */
export interface Offer {
  readonly runnerId: string;
  readonly bootId: string;
  readonly runId: string;
  readonly leaseId: string;
  readonly attempt: number;
  /** Epoch milliseconds. */
  readonly acceptBy: number;
  readonly invocation: ExecutorInvocation;
  /** Of the invocation, as it is stored. */
  readonly bytes: number;
  readonly timeoutMs: number | undefined;
  readonly idleTimeoutMs: number | undefined;
  readonly hooks: AgentHooks | undefined;
}

/** A runner that has an open stream and may take runs of these demand classes. */
export interface Candidate {
  readonly runnerId: string;
  readonly bootId: string;
  readonly demandClasses: readonly string[];
}

/** A run that waits, for the log. */
export interface PendingRun {
  readonly runId: string;
  readonly sessionId: string;
}

export interface Offered {
  readonly offers: Offer[];
  /** Runners that can take no more now. */
  readonly fullRunnerIds: string[];
  /** Demand classes, of those asked for, in which no run waits any more. */
  readonly emptyClasses: string[];
  /** Epoch milliseconds at which the first cooldown of a runner and a run ends. */
  readonly retryAt: number | undefined;
}

export interface Registered {
  readonly runnerId: string;
  /** True when another process had the identity and its stream is to be ended. */
  readonly replacedBootId: string | undefined;
  readonly verdicts: LeaseVerdict[];
}

/** What the shell knows and the store does not, for a registration. */
export interface RegistrationTerms {
  streamOpen(runnerId: string, bootId: string): boolean;
  /** Silence after which a process without a stream is not live. */
  readonly heardWithinMs: number;
  /** Most runners that may be registered. */
  readonly maxRunners: number;
}

/** What reports are decided by, besides the rows. */
export interface ReportTerms {
  readonly leaseTtlMs: number;
  /** Runners that suit a demand class and are expected to be there. */
  readonly suitable: (demandClass: string) => Iterable<string>;
  /** What the results of the batch do not fit, judged before the command. */
  readonly violations: ResultViolations;
}

/** What a runner says when it is heard from. */
export interface Beat {
  readonly bootId: string;
  readonly held: readonly HeldLease[];
  readonly freeSlots: number | undefined;
  /** Absent: as it said last. */
  readonly draining?: boolean;
  /** Absent: as it said last. */
  readonly eventLoopLagMs?: number | undefined;
}

export interface EventPage {
  readonly events: SessionEvent[];
  /** Place after the last event that was looked at. */
  readonly next: number;
  readonly more: boolean;
}

/** Figures for /metrics. */
export interface StoreGauges {
  readonly openRuns: Readonly<Record<string, number>>;
  readonly oldestPendingAt: number | undefined;
  readonly fileBytes: number;
}

/**
 * Everything that is true, in one place.
 *
 * Each method is one atomic command: when it returns, it is durable; when it throws, nothing was changed. Rules are
 * decided by the pure core on the rows inside the transaction, so that commands of several coordinators would be decided
 * one after the other. `now` is epoch milliseconds.
 *
 * Every method throws `CommitError` when the disk refuses.
 */
export interface Store {
  /** Identity of this store, part of every cursor. */
  readonly storeId: string;
  /** Places in its events. */
  readonly cursors: EventCursors;
  /** Key for the run tokens of this store. */
  readonly secret: string;

  /** What was kept of the wall clock; `now` where nothing was and nothing has ended. */
  clockNote(now: number): Promise<ClockNote>;
  keepClockNote(note: ClockNote): Promise<void>;
  /** Writes something; throws when the store cannot. */
  probe(): Promise<void>;
  /** A copy that is under way is given up. */
  close(): Promise<void>;
  /**
   * Copies the store to a new file, as it is when the copy is complete; commands go on meanwhile. Returns the bytes.
   * @throws Refusal as RunService.BackupStore says.
   */
  backup(path: string): Promise<number>;
  gauges(): Promise<StoreGauges>;

  /** @throws Refusal as RunService.CreateRun says. */
  createRun(
    request: CreateRunRequest,
    agent: AgentLookup,
    ids: { runId: string; sessionId: string },
    limits: TreeLimits,
    now: number,
  ): Promise<Committed<Run>>;
  /** Agent of the session that the request names, empty when it has none; undefined when there is no such session. */
  agentNameOf(session: { sessionId: string; sessionName: string }): Promise<string | undefined>;
  /** The blueprint of that name as the newest run of the session had it. */
  lastBlueprint(session: { sessionId: string; sessionName: string }, name: string): Promise<AgentBlueprint | undefined>;
  /** The run with its attempts, and what `pending_reasons` are made of. */
  getRun(runId: string): Promise<FoundRun | undefined>;
  /** Whether a run has ended; undefined when it does not exist. */
  hasEnded(runId: string): Promise<boolean | undefined>;
  /** @throws Refusal INVALID_ARGUMENT for a page token that is not ours. */
  listRuns(query: RunQuery): Promise<Page<Run>>;
  /** Runs that an abbreviated id may mean, newest id first. */
  findRuns(query: RunAbbreviation): Promise<FoundRuns>;
  /** @throws Refusal NOT_FOUND. */
  stopRun(
    runId: string,
    stop: Stop,
    cascade: boolean,
    now: number,
  ): Promise<Committed<{ run: Run; stoppedRunIds: string[] }>>;
  /** Deletes, or only counts, runs that ended until `before`, oldest first. */
  pruneRuns(query: PruneQuery): Promise<Pruned>;

  /** @throws Refusal ALREADY_EXISTS when another live process has the identity, RESOURCE_EXHAUSTED beyond `maxRunners`. */
  register(
    request: RegisterRequest,
    terms: RegistrationTerms,
    tokenHash: string,
    leaseTtlMs: number,
    now: number,
  ): Promise<Committed<Registered>>;
  /** Process that a token belongs to; "UNKNOWN" for a runner that is not registered, undefined for a wrong token. */
  runnerOfToken(runnerId: string, tokenHash: string): Promise<{ bootId: string } | "UNKNOWN" | undefined>;
  /** @throws Refusal ALREADY_EXISTS when the process is not the registered one. */
  beat(
    runnerId: string,
    beat: Beat,
    leaseTtlMs: number,
    now: number,
  ): Promise<Committed<{ verdicts: LeaseVerdict[]; directives: Directive[] }>>;
  /** The `output_schema` of the blueprints that these runs are made with, by run id. */
  outputSchemas(runIds: readonly string[]): Promise<ReadonlyMap<string, JsonObject>>;
  report(
    runnerId: string,
    reports: readonly Report[],
    terms: ReportTerms,
    now: number,
  ): Promise<Committed<{ verdicts: ReportVerdict[]; directives: Directive[] }>>;
  appendEvents(
    runnerId: string,
    batches: readonly EventBatch[],
    now: number,
  ): Promise<Committed<{ verdicts: EventBatchVerdict[]; directives: Directive[] }>>;
  /** Orders that a runner has not carried out. */
  directives(runnerId: string): Promise<Directive[]>;
  /** @throws Refusal ALREADY_EXISTS when the process is not the registered one. */
  deregister(runnerId: string, bootId: string, now: number): Promise<Committed<void>>;

  runnerFacts(runnerIds: readonly string[] | "all"): Promise<RunnerRecord[]>;
  listRunners(pageSize: number, pageToken: string): Promise<Page<RunnerRecord>>;
  /** @throws Refusal NOT_FOUND. */
  drainRunner(runnerId: string, reason: string): Promise<Committed<RunnerRecord>>;
  /** @throws Refusal NOT_FOUND. */
  removeRunner(runnerId: string, now: number): Promise<Committed<string[]>>;

  /** Runners that were not heard from since `before`. */
  silentRunners(before: number): Promise<{ runnerId: string; bootId: string }[]>;
  /** Forgets runners that hold nothing and were not heard from since `before`, or that left before `leftBefore`. */
  forgetRunners(before: number, leftBefore: number): Promise<Committed<number>>;

  /** Demand classes in which a run is pending. */
  pendingClasses(): Promise<string[]>;
  /** The run of a demand class that waits longest. */
  firstPending(demandClass: string): Promise<PendingRun | undefined>;
  offer(
    candidates: readonly Candidate[],
    newLeaseId: () => string,
    acceptBy: number,
    now: number,
  ): Promise<Committed<Offered>>;
  openOffers(runnerId: string): Promise<Offer[]>;
  /**
   * Takes open offers back: those of one runner, or all of them. With `unanswered`, which says why, the first of them counts
   * as refused.
   */
  withdrawOffers(runnerId: string | undefined, unanswered: string | undefined, now: number): Promise<Committed<number>>;
  /** Ends what is due: offers always, leases when `leases` is set. At most 100 in one call; returns whether more are due. */
  expire(now: number, leases: boolean): Promise<Committed<boolean>>;
  /** After the wall clock was set back: brings deadlines that are too far ahead to what they can be from `now`. */
  clampTimes(leaseTtlMs: number, acceptDeadlineMs: number, now: number): Promise<Committed<void>>;
  /** Runners that hold accepted leases. */
  holders(): Promise<string[]>;
  /** Starts the no-match clock of a demand class, or with `undefined` ends it. */
  setUnmatched(demandClass: string, since: number | undefined): Promise<void>;
  /** Demand classes whose no-match clock started before `before`. */
  unmatchedClasses(before: number): Promise<string[]>;
  /** Fails the pending runs of a demand class; at most 100 in one call. */
  failPending(
    demandClass: string,
    event: "UNMATCHED" | "AFFINITY_LOST",
    message: string,
    unmatchedBefore: number,
    now: number,
  ): Promise<Committed<number>>;

  /** By id or by name. */
  getSession(key: { sessionId: string } | { sessionName: string }): Promise<Session | undefined>;
  listSessions(query: SessionQuery): Promise<Page<Session>>;
  /** @throws Refusal as SessionService.UpdateSession says. */
  updateSession(request: UpdateSessionRequest): Promise<Committed<Session>>;
  /**
   * From then on the session is there for nobody; returns whether rows of it are left, for `finishDeletions`.
   * @throws Refusal as SessionService.DeleteSession says.
   */
  deleteSession(sessionId: string, budgetMs: number): Promise<Committed<boolean>>;
  /** Deletes what is left of such sessions, for about `budgetMs`; returns whether more is. */
  finishDeletions(budgetMs: number): Promise<boolean>;
  /** Events of a session after place `after`, oldest first. @throws Refusal NOT_FOUND. */
  listEvents(query: EventQuery): Promise<EventPage>;
  /** The last run of the session that ended, or the one named. @throws Refusal NOT_FOUND, FAILED_PRECONDITION. */
  sessionResult(sessionId: string, runId: string): Promise<Run>;
  /** The accepted lease that a run token names, and whether it lives. */
  leaseOfToken(leaseId: string): Promise<{ runId: string; sessionId: string; live: boolean } | undefined>;
  /** True when `sessionId` is `ancestorId` or stands below it. */
  isWithin(sessionId: string, ancestorId: string): Promise<boolean>;
}

export interface PruneQuery {
  /** Epoch milliseconds. */
  readonly before: number;
  /** Nothing is deleted. */
  readonly dryRun: boolean;
  /** Where the call before this one ended. */
  readonly from: PrunePlace | undefined;
  /** Time after which the call ends, so that the store is free for others. */
  readonly budgetMs: number;
}

export interface PrunePlace {
  readonly endedAt: number;
  readonly seq: number;
}

export interface Pruned {
  readonly runs: number;
  /** Undefined when nothing is left. */
  readonly next: PrunePlace | undefined;
}

export interface RunQuery {
  readonly states: readonly RunState[];
  readonly sessionId: string;
  readonly runnerId: string;
  readonly pageSize: number;
  readonly pageToken: string;
  /** Only sessions at or below this one. */
  readonly withinSessionId: string | undefined;
}

export interface RunAbbreviation {
  /** Which id is abbreviated. Of a session its newest run is meant. */
  readonly type: "run-id" | "session-id" | "request-id";
  /** Not empty. */
  readonly prefix: string;
  readonly limit: number;
  /** Only sessions at or below this one. */
  readonly withinSessionId: string | undefined;
}

export interface FoundRuns {
  readonly runs: Run[];
  /** True when there may be others. */
  readonly more: boolean;
}

export interface SessionQuery {
  readonly statuses: readonly SessionStatus[];
  readonly parentSessionId: string;
  readonly pageSize: number;
  readonly pageToken: string;
  /** Only sessions at or below this one. */
  readonly withinSessionId: string | undefined;
}

export interface EventQuery {
  readonly sessionId: string;
  /** Only events of this run; empty: all. */
  readonly runId: string;
  readonly after: number;
  readonly limit: number;
  /** Fewer events are returned when more would be larger than this. */
  readonly maxBytes: number;
}

/** A runner as the store has it; whether its stream is open is for the shell to say. */
export interface RunnerRecord {
  readonly runner: Runner;
  readonly facts: Omit<RunnerFacts, "presence">;
  /** Empty when it has left. */
  readonly bootId: string;
  /** Epoch milliseconds. */
  readonly lastHeardAt: number;
  /** True when it has deregistered; it is kept for the sessions whose files it holds. */
  readonly left: boolean;
}
