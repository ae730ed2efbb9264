import { ScalarType } from "@bufbuild/protobuf";
import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Interceptor, StreamRequest, UnaryRequest } from "@connectrpc/connect";
import { bug } from "../../lib/bug.ts";
import { notFound } from "../../lib/rpc/error-info.ts";
import type { Store } from "../store/store.ts";
import { Callers, setCaller } from "./caller.ts";
import type { Caller } from "./caller.ts";
import type { Access, Policy, Reach } from "./policy.ts";
import type { RunTokens } from "./run-tokens.ts";

const POLICY_FILE = "coordinator/access/policy.ts";

/** The one place that every call passes before its handler. */
export interface Gate {
  /** Goes innermost: a request that breaks the rules of its message is INVALID_ARGUMENT whoever sends it. */
  readonly interceptor: Interceptor;
  /** @throws Error that names every method and page that the policy has no row for, or a row that cannot be applied. */
  readonly check: (methods: Iterable<DescMethod>, pages: Iterable<string>) => void;
}

export interface GateDeps {
  readonly store: Pick<Store, "runnerOfToken" | "leaseOfToken" | "isWithin" | "getRun" | "getSession">;
  readonly runTokens: RunTokens;
  readonly policy: Policy;
}

/** Finds out who makes a call and whether the policy lets them; handlers learn who it is from `callerOf`. */
export function createGate({ store, runTokens, policy }: GateDeps): Gate {
  const callers = new Callers(store, runTokens);
  const rows = new Map(Object.entries(policy));

  /** @throws ConnectError NOT_FOUND, UNAUTHENTICATED, PERMISSION_DENIED. */
  const admit = async (access: Access, header: Headers, request: unknown): Promise<Caller> => {
    switch (access.type) {
      case "anyone":
        return { type: "anonymous" };
      case "runner":
        return callers.runner(header, textOf(request, access.idField));
      case "person": {
        const caller = await callers.personOrRun(header);
        if (caller.type === "run") throw denied(access.denied);
        return caller;
      }
      case "person-or-run": {
        const caller = await callers.personOrRun(header);
        if (caller.type === "run") for (const reach of access.reach) await mustReach(store, caller, reach, request);
        return caller;
      }
      default:
        return access satisfies never;
    }
  };

  const interceptor: Interceptor = (next) => async (request) => {
    const access = rows.get(pathOf(request.method));
    if (access === undefined) throw bug("GATE1", `${pathOf(request.method)} has no row in ${POLICY_FILE}`);
    const { message, toHandler } =
      access.type === "anyone" ? { message: undefined, toHandler: request } : await read(request);
    try {
      setCaller(request.contextValues, await admit(access, request.header, message));
    } catch (error) {
      if (toHandler.stream) void drain(toHandler.message);
      throw error;
    }
    return next(toHandler);
  };
  return { interceptor, check: (methods, pages) => checkPolicy(rows, methods, pages) };
}

/**
 * The message of a request that has one, and the request to hand on. A request of a streaming method is an iterable, also
 * where only the response is a stream: its first message is taken out, and put before the others again.
 */
async function read(
  request: UnaryRequest | StreamRequest,
): Promise<{ message: unknown; toHandler: UnaryRequest | StreamRequest }> {
  if (!request.stream) return { message: request.message, toHandler: request };
  const messages = request.message[Symbol.asyncIterator]();
  const first = await messages.next();
  if (first.done === true)
    throw new ConnectError("protocol error: the call has no request message", Code.Unimplemented);
  const all = (async function* () {
    yield first.value;
    yield* { [Symbol.asyncIterator]: () => messages };
  })();
  return { message: first.value, toHandler: { ...request, message: all } };
}

/**
 * Reads what else a refused call sends. Unread bytes use up the window of the HTTP/2 connection, and after a few such calls Node
 * refuses every other one on it. Ends with the call.
 */
async function drain(messages: AsyncIterable<unknown>): Promise<void> {
  try {
    for await (const _ of messages) continue;
  } catch {
    // The call is over, or broke a limit: nobody is left to be told.
  }
}

/** @throws ConnectError PERMISSION_DENIED when the request names what is not in the caller's tree; NOT_FOUND, see Reach. */
async function mustReach(
  store: GateDeps["store"],
  { sessionId: own }: Extract<Caller, { type: "run" }>,
  reach: Reach,
  request: unknown,
): Promise<void> {
  const id = textOf(request, reach.idField);
  const mustBeWithin = async (sessionId: string): Promise<void> => {
    if (!(await store.isWithin(sessionId, own))) throw denied(`session ${sessionId}`);
  };
  switch (reach.type) {
    case "run": {
      const found = await store.getRun(id);
      if (found === undefined) throw notFound("RUN_NOT_FOUND", `no run ${id}`);
      return mustBeWithin(found.run.sessionId);
    }
    case "session":
      return mustBeWithin(id);
    case "found-session": {
      const key = id === "" ? { sessionName: textOf(request, reach.nameField ?? reach.idField) } : { sessionId: id };
      const found = await store.getSession(key);
      if (found === undefined) throw notFound("SESSION_NOT_FOUND", `no session ${Object.values(key).join("")}`);
      return mustBeWithin(found.sessionId);
    }
    case "own-session":
      if (id === own) return undefined;
      throw denied(id === "" ? "runs without parent_session_id" : `children of session ${id}`);
    case "continued-session": {
      const sessionName = textOf(request, reach.nameField);
      const named = sessionName === "" ? undefined : await store.getSession({ sessionName });
      const continued = named?.sessionId ?? id;
      return continued === "" ? undefined : mustBeWithin(continued);
    }
    default:
      return reach satisfies never;
  }
}

function denied(what: string): ConnectError {
  return new ConnectError(
    `a run token is good for its own session and those below it, not for ${what}`,
    Code.PermissionDenied,
  );
}

function textOf(request: unknown, field: string): string {
  const value = (request as Readonly<Record<string, unknown>>)[field];
  if (typeof value !== "string") throw bug("GATE2", `${field}, which ${POLICY_FILE} names, is no text in the request`);
  return value;
}

function pathOf({ parent, name }: DescMethod): string {
  return `/${parent.typeName}/${name}`;
}

function checkPolicy(rows: ReadonlyMap<string, Access>, methods: Iterable<DescMethod>, pages: Iterable<string>): void {
  const wrong: string[] = [];
  for (const method of methods) {
    const path = pathOf(method);
    const access = rows.get(path);
    if (access === undefined) wrong.push(`${path} has no row`);
    else for (const field of missingFields(method, access)) wrong.push(`${path}: its request has no text ${field}`);
  }
  for (const page of pages) {
    const access = rows.get(page);
    if (access === undefined) wrong.push(`${page} has no row`);
    else if (access.type !== "anyone") wrong.push(`${page}: a page can only be for anyone`);
  }
  if (wrong.length > 0) throw new Error(`who may call is not settled, see ${POLICY_FILE}: ${wrong.join("; ")}`);
}

function missingFields({ input }: DescMethod, access: Access): string[] {
  const texts = new Set(
    input.fields
      .filter((field) => field.fieldKind === "scalar" && field.scalar === ScalarType.STRING)
      .map(({ localName }) => localName),
  );
  return fieldsOf(access).filter((field) => !texts.has(field));
}

function fieldsOf(access: Access): string[] {
  switch (access.type) {
    case "runner":
      return [access.idField];
    case "person-or-run":
      return access.reach.flatMap((reach) => {
        return "nameField" in reach && reach.nameField !== undefined
          ? [reach.idField, reach.nameField]
          : [reach.idField];
      });
    default:
      return [];
  }
}
