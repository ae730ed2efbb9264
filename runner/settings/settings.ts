import type { JsonObject } from "@bufbuild/protobuf";
import type { RunnerOptions } from "../config.ts";

/** Options that are settings as they are given. */
type Given = Pick<
  RunnerOptions,
  | "coordinatorUrl"
  | "requireMatchingTags"
  | "maxRuns"
  | "name"
  | "stateDir"
  | "pollTimeoutMs"
  | "heartbeatIntervalMs"
  | "drainTimeoutMs"
  | "once"
>;

/** What a runner needs to know to run: its options, and what was found out about the others and checked. */
export interface RunnerSettings extends Given {
  /** PEM of the certificate authorities to trust. */
  readonly tlsCaPem: string | undefined;
  readonly hostname: string;
  /** The host name was given: no state under another one is this runner's. */
  readonly fixedHostname: boolean;
  /** Real path of an existing directory. */
  readonly projectDir: string;
  readonly executorProfile: string;
  readonly executor: ExecutorSettings;
  /** Those of the profile, and those given. */
  readonly tags: readonly string[];
  /** Port on 127.0.0.1 of the MCP server for executors, 0 for a free one; or the server that they get instead. */
  readonly mcp: { readonly type: "own"; readonly port: number } | { readonly type: "external"; readonly url: string };
}

export interface ExecutorSettings {
  readonly type: string;
  /** Absolute path of the program. */
  readonly command: string;
  readonly config: JsonObject;
  readonly portable: boolean;
  /** Names of variables that the executor gets beside the usual ones. */
  readonly passEnv: readonly string[];
  /** Names and patterns of variables whose values are masked in what the executor prints. */
  readonly maskEnv: readonly string[];
  /** Limit of runs that have none of their own. Absent: none. */
  readonly idleTimeout?: IdleTimeout | undefined;
}

/** How long an executor may print nothing. */
export interface IdleTimeout {
  /** 0: no limit. */
  readonly ms: number;
  /** Who says so. */
  readonly of: { readonly type: "executor" | "profile"; readonly file: string };
}
