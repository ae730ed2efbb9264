import type { JsonObject } from "@bufbuild/protobuf";

/** What a runner needs to know to run, found out and checked. */
export interface RunnerSettings {
  readonly coordinatorUrl: string;
  /** PEM of the certificate authorities to trust. */
  readonly tlsCaPem: string | undefined;
  readonly hostname: string;
  /** Real path of an existing directory. */
  readonly projectDir: string;
  readonly executorProfile: string;
  readonly executor: ExecutorSettings;
  readonly tags: readonly string[];
  readonly requireMatchingTags: boolean;
  readonly maxRuns: number;
  /** Empty when there is one runner of the host, directory and profile. */
  readonly name: string;
  /** Base of the state directories. */
  readonly stateDir: string;
  readonly pollTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
  /** 0: no limit. */
  readonly drainTimeoutMs: number;
  /** Port on 127.0.0.1 of the MCP server for executors, 0 for a free one; or the server that they get instead. */
  readonly mcp: { readonly port: number } | { readonly externalUrl: string };
  readonly once: boolean;
}

export interface ExecutorSettings {
  readonly type: string;
  /** Absolute path of the program. */
  readonly command: string;
  readonly config: JsonObject;
  readonly portable: boolean;
  /** Names of variables that the executor gets beside the usual ones. */
  readonly passEnv: readonly string[];
}
