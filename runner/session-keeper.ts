import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { SessionService } from "../gen/agentrunner/v1/session_service_pb.ts";
import type { Log } from "../lib/log.ts";
import { reasonOf } from "../lib/rpc/error-info.ts";
import { connectTransport } from "../lib/rpc/transport.ts";
import type { Connection } from "./connection/connection.ts";
import type { Heartbeat } from "./connection/heartbeat.ts";
import { callTimeoutMs } from "./connection/timing.ts";
import { SessionDirs } from "./execution/session-dirs.ts";
import type { RunnerSettings } from "./settings/settings.ts";

/** Sessions that the coordinator is asked about in one pass. */
const PASS_MAX = 500;

/** From one pass to the next: while folders are left to look at, after all of them, and after a pass that failed. */
const PAUSE_MS = { more: 60_000, all: 24 * 3_600_000, failed: 600_000 };

/** What to ask of the coordinator. */
export interface SessionAsker {
  /** Store that the coordinator has, as soon as it is known. Rejects when the runner ends. */
  storeId(): Promise<string>;
  /** Whether the coordinator has the session. Rejects when it does not say so. */
  exists(sessionId: string): Promise<boolean>;
  /** Resolves when the coordinator that answers now knows this runner, which no other store does. */
  confirm(): Promise<void>;
  /** No pass follows. */
  close(): void;
}

export interface SessionKeeperOptions {
  readonly dirs: SessionDirs;
  readonly asker: () => SessionAsker;
  /** A run of the session is here. */
  readonly isActive: (sessionId: string) => boolean;
  readonly closing: AbortSignal;
  readonly log: Log;
  /** For tests. */
  readonly passMax?: number;
}

/** Removes the folders of sessions that the coordinator does not have any more: at the start, and once a day. */
export class SessionKeeper {
  readonly #options: SessionKeeperOptions;
  /** Folders up to this one were looked at. */
  #after = "";

  constructor(options: SessionKeeperOptions) {
    this.#options = options;
  }

  /** Goes on until `closing`. Never rejects. */
  async run(): Promise<void> {
    const { closing, log } = this.#options;
    while (!closing.aborted) {
      const pause = await this.pass().catch((error: unknown) => {
        if (!closing.aborted) log.warn({ reason: String(error) }, "folders of sessions were not looked through");
        return "failed" as const;
      });
      // Ends with the runner, and keeps no process alive.
      await delay(PAUSE_MS[pause], undefined, { signal: closing, ref: false }).catch(() => undefined);
    }
  }

  /** One pass over some folders. Rejects when the coordinator did not answer; what it said until then is not used. */
  async pass(): Promise<"more" | "all"> {
    const { dirs, asker, isActive, passMax = PASS_MAX } = this.#options;
    await dirs.finishRemoving();
    const left = dirs.names().filter((name) => name > this.#after);
    const names = left.slice(0, passMax);
    if (names.length > 0) {
      const coordinator = asker();
      try {
        const gone = await this.#gone(coordinator, names);
        for (const { name, sessionId } of gone) if (!isActive(sessionId)) await this.#remove(name, sessionId);
      } finally {
        coordinator.close();
      }
    }
    const more = left.length > names.length;
    this.#after = more ? (names.at(-1) ?? "") : "";
    return more ? "more" : "all";
  }

  async #gone(coordinator: SessionAsker, names: readonly string[]): Promise<{ name: string; sessionId: string }[]> {
    const storeId = await coordinator.storeId();
    const gone: { name: string; sessionId: string }[] = [];
    for (const name of names) {
      const owner = this.#options.dirs.ownerOf(name);
      // Another store's sessions are not this coordinator's to know.
      if (owner === undefined || owner.storeId !== storeId || this.#options.isActive(owner.sessionId)) continue;
      if (!(await coordinator.exists(owner.sessionId))) gone.push({ name, sessionId: owner.sessionId });
    }
    if (gone.length > 0) await coordinator.confirm();
    return (await coordinator.storeId()) === storeId ? gone : [];
  }

  async #remove(name: string, sessionId: string): Promise<void> {
    const { dirs, log } = this.#options;
    try {
      await dirs.remove(name);
      log.info({ session_id: sessionId }, "the session is gone from the coordinator; its folder was removed");
    } catch (error) {
      log.warn({ session_id: sessionId, reason: String(error) }, "the folder of a session could not be removed");
    }
  }
}

/** Keeps the folders of sessions until the connection ends. Never rejects. */
export function keepSessions(
  settings: Pick<RunnerSettings, "stateDir" | "coordinatorUrl" | "tlsCaPem">,
  connection: Connection,
  heartbeat: Heartbeat,
  isActive: (sessionId: string) => boolean,
  log: Log,
): Promise<void> {
  const dirs = new SessionDirs(settings.stateDir);
  const asker = () => askerOf(connection, heartbeat, settings);
  return new SessionKeeper({ dirs, asker, isActive, closing: connection.closing, log }).run();
}

/** Asks the coordinator that a connection leads to, over a connection of its own: nobody waits behind these questions. */
function askerOf(
  connection: Connection,
  heartbeat: Pick<Heartbeat, "answered">,
  to: { coordinatorUrl: string; tlsCaPem: string | undefined },
): SessionAsker {
  const link = connectTransport(to.coordinatorUrl, { ca: to.tlsCaPem });
  const client = createClient(SessionService, link.transport);
  const { closing, timing } = connection;
  return {
    storeId: async () => (await connection.registered()).storeId,
    exists: (sessionId) =>
      client
        .getSession({ sessionId }, { signal: closing, timeoutMs: callTimeoutMs(timing) })
        .then(() => true, existsAfter),
    confirm: () => heartbeat.answered(),
    close: () => link.abort(),
  };
}

/** False when the coordinator itself says that there is no such session: a proxy's 404 carries no reason. */
function existsAfter(error: unknown): boolean {
  const { code } = ConnectError.from(error);
  if (code === Code.NotFound && reasonOf(error) === "SESSION_NOT_FOUND") return false;
  // An id that it does not read says nothing about the others.
  if (code === Code.InvalidArgument) return true;
  throw error;
}
