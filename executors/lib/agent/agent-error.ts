/**
 * Why an agent could not do a run, in a word that programs may test. It stands first on the last line of stderr, and so in
 * the message of the failed run.
 */
export type AgentErrorReason =
  /** The program is not installed; the message has the command that installs it. */
  | "AGENT_NOT_INSTALLED"
  /** Another version is installed than the executor can drive. */
  | "AGENT_VERSION"
  /** No key and no login; the message says which variable or command. */
  | "NOT_LOGGED_IN"
  /** A server of the blueprint does not answer. */
  | "MCP_SERVER_FAILED"
  /** The model's provider refuses the request: 400, 403, a policy. */
  | "MODEL_REFUSED"
  /** The provider wants less of us: 429, a used up quota. */
  | "RATE_LIMITED"
  /** The provider cannot be reached, is overloaded, or broke off. */
  | "MODEL_UNREACHABLE"
  /** The agent does not know the conversation that is to be resumed. */
  | "UNKNOWN_SESSION"
  /** The directory in which the conversation began does not exist any more. */
  | "PROJECT_DIR_GONE"
  /** The result does not fit the blueprint's output schema. */
  | "OUTPUT_SCHEMA"
  /** The agent said that it is done, and no model has answered. */
  | "NO_ANSWER"
  /** `executor_config` holds something that the executor cannot use. */
  | "BAD_CONFIG"
  /** A limit of `executor_config` was reached: turns, money, time. */
  | "LIMIT_REACHED"
  /** Everything else: the agent says itself what went wrong. */
  | "AGENT_FAILED";

/** EX_TEMPFAIL of sysexits.h: the environment failed, and a run that may be tried again is (ADR 12). */
const TRY_AGAIN = 75;

const EXIT_CODES: Readonly<Record<AgentErrorReason, number>> = {
  AGENT_NOT_INSTALLED: TRY_AGAIN,
  AGENT_VERSION: TRY_AGAIN,
  NOT_LOGGED_IN: TRY_AGAIN,
  MCP_SERVER_FAILED: TRY_AGAIN,
  RATE_LIMITED: TRY_AGAIN,
  MODEL_UNREACHABLE: TRY_AGAIN,
  PROJECT_DIR_GONE: TRY_AGAIN,
  MODEL_REFUSED: 1,
  UNKNOWN_SESSION: 1,
  OUTPUT_SCHEMA: 1,
  NO_ANSWER: 1,
  LIMIT_REACHED: 1,
  AGENT_FAILED: 1,
  BAD_CONFIG: 2,
};

/** The run fails. The message says what happened, with which value, and what to do next. */
export class AgentError extends Error {
  override readonly name = "AgentError";
  readonly reason: AgentErrorReason;

  constructor(reason: AgentErrorReason, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }

  get exitCode(): number {
    return EXIT_CODES[this.reason];
  }
}
