/**
 * Who may call what, and nothing else (ADR 14). The server does not start when a method or page that it serves has no row
 * here, and `access/gate.ts` refuses a call that has none.
 */

/** Who may make a call. A role that is to come is a further type here and a further case in `access/gate.ts`. */
export type Access =
  /** Everyone; the token is not looked at. */
  | { readonly type: "anyone" }
  /** The runner whose id is in this field of the request, with its token. */
  | { readonly type: "runner"; readonly idField: string }
  /** A person. `denied` completes the refusal of a run: "a run token is … not for …". */
  | { readonly type: "person"; readonly denied: string }
  /** A person; and a run, which reaches only its own session, those below it, and what belongs to them. */
  | { readonly type: "person-or-run"; readonly reach: readonly Reach[] };

/**
 * A thing that a request names, and that must be in the tree of sessions of the run that makes the request. A request that
 * lists things names none: its handler restricts the list by `treeOf` in `access/caller.ts`.
 */
export type Reach =
  /** A run, by id. NOT_FOUND when there is none. */
  | { readonly type: "run"; readonly idField: string }
  /** A session, by id. One that does not exist is in no tree. */
  | { readonly type: "session"; readonly idField: string }
  /** A session, by id or, when that is empty and there is such a field, by name. NOT_FOUND when there is none. */
  | { readonly type: "found-session"; readonly idField: string; readonly nameField?: string }
  /** The run's own session and no other, by id. */
  | { readonly type: "own-session"; readonly idField: string }
  /** A session to continue: none when both fields are empty, a new one when no session has the name. */
  | { readonly type: "continued-session"; readonly idField: string; readonly nameField: string };

/** By request path: `/package.Service/Method`, or the path of a page. */
export type Policy = Readonly<Record<string, Access>>;

const ANYONE: Access = { type: "anyone" };
const RUNNER: Access = { type: "runner", idField: "runnerId" };
const PERSON_OR_RUN: Access = { type: "person-or-run", reach: [] };
const THE_FLEET: Access = { type: "person", denied: "the fleet" };
/** Agents choose among blueprints; what agents there are is for people to say. */
const CHANGE_BLUEPRINTS: Access = { type: "person", denied: "changing agent blueprints" };
const RUN_IN_TREE = within({ type: "run", idField: "runId" });
const SESSION_IN_TREE = within({ type: "session", idField: "sessionId" });

function within(...reach: readonly Reach[]): Access {
  return { type: "person-or-run", reach };
}

export const POLICY: Policy = {
  // A runner proves who it is by what Register returns. Register itself is open to every process on the machine.
  "/agentrunner.v1.RunnerService/Register": ANYONE,
  "/agentrunner.v1.RunnerService/WatchRuns": RUNNER,
  "/agentrunner.v1.RunnerService/ReportStatus": RUNNER,
  "/agentrunner.v1.RunnerService/Heartbeat": RUNNER,
  "/agentrunner.v1.RunnerService/AppendEvents": RUNNER,
  "/agentrunner.v1.RunnerService/Deregister": RUNNER,

  // An executor starts children of its own session and continues sessions below it; it does not act for others.
  "/agentrunner.v1.RunService/CreateRun": within(
    { type: "own-session", idField: "parentSessionId" },
    { type: "continued-session", idField: "sessionId", nameField: "sessionName" },
  ),
  "/agentrunner.v1.RunService/GetRun": RUN_IN_TREE,
  "/agentrunner.v1.RunService/ListRuns": PERSON_OR_RUN,
  "/agentrunner.v1.RunService/FindRuns": PERSON_OR_RUN,
  "/agentrunner.v1.RunService/StopRun": RUN_IN_TREE,
  "/agentrunner.v1.RunService/WatchRun": RUN_IN_TREE,
  "/agentrunner.v1.RunService/PruneRuns": THE_FLEET,
  "/agentrunner.v1.RunService/BackupStore": THE_FLEET,

  "/agentrunner.v1.SessionService/GetSession": within({
    type: "found-session",
    idField: "sessionId",
    nameField: "sessionName",
  }),
  "/agentrunner.v1.SessionService/ListSessions": PERSON_OR_RUN,
  "/agentrunner.v1.SessionService/ListSessionEvents": SESSION_IN_TREE,
  "/agentrunner.v1.SessionService/WatchSession": within({ type: "found-session", idField: "sessionId" }),
  "/agentrunner.v1.SessionService/GetSessionResult": SESSION_IN_TREE,
  "/agentrunner.v1.SessionService/UpdateSession": SESSION_IN_TREE,
  "/agentrunner.v1.SessionService/DeleteSession": SESSION_IN_TREE,

  "/agentrunner.v1.BlueprintService/GetBlueprint": PERSON_OR_RUN,
  "/agentrunner.v1.BlueprintService/ListBlueprints": PERSON_OR_RUN,
  "/agentrunner.v1.BlueprintService/CreateBlueprint": CHANGE_BLUEPRINTS,
  "/agentrunner.v1.BlueprintService/UpdateBlueprint": CHANGE_BLUEPRINTS,
  "/agentrunner.v1.BlueprintService/DeleteBlueprint": CHANGE_BLUEPRINTS,

  "/agentrunner.v1.FleetService/ListRunners": THE_FLEET,
  "/agentrunner.v1.FleetService/GetRunner": THE_FLEET,
  "/agentrunner.v1.FleetService/DrainRunner": THE_FLEET,
  "/agentrunner.v1.FleetService/RemoveRunner": THE_FLEET,

  // What tools need to find out whether, and what, this is.
  "/grpc.health.v1.Health/Check": ANYONE,
  "/grpc.health.v1.Health/List": ANYONE,
  "/grpc.health.v1.Health/Watch": ANYONE,
  "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": ANYONE,
  "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": ANYONE,

  // Pages. Each is for anyone: requests for them do not pass the gate.
  "/": ANYONE,
  "/health": ANYONE,
  "/ready": ANYONE,
  "/metrics": ANYONE,
  // Its tools call the services above, each call with the client's own token and through the gate.
  "/mcp": ANYONE,
};
