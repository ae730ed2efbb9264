/** A document that every reader takes, and the ways to break it that every reader and the schema must refuse. */

const server = { type: "http", url: "http://127.0.0.1:54321", headers: { "X-Agent-Session-Id": "ses_abc123" } };

export const VALID = {
  schema_version: "2.0",
  mode: "start",
  session_id: "ses_abc123",
  prompt: "User input text",
  project_dir: "/path/to/project",
  agent_blueprint: { name: "a", system_prompt: "You are …", mcp_servers: { orchestrator: server } },
  metadata: {},
};

export interface Broken {
  /** Merged over VALID; undefined removes a field. */
  change: object;
  /** What the readers say. */
  error: string;
}

const blueprint = (change: object) => ({ agent_blueprint: { ...VALID.agent_blueprint, ...change } });
const mcp = (change: object) => blueprint({ mcp_servers: { m: { ...server, ...change } } });
const AT_SERVER = "invocation.agent_blueprint.mcp_servers.m";

export const BROKEN: Broken[] = [
  {
    change: { schema_version: undefined },
    error: 'invocation.schema_version: expected a version "2.x", found nothing',
  },
  {
    change: { schema_version: "3.0", session_id: undefined },
    error: 'invocation.schema_version: expected a version "2.x", found "3.0"',
  },
  { change: { schema_version: "2" }, error: 'invocation.schema_version: expected a version "2.x", found "2"' },
  { change: { schema_version: 2 }, error: 'invocation.schema_version: expected a version "2.x", found a number' },
  { change: { mode: "restart" }, error: 'invocation.mode: expected "start" or "resume", found "restart"' },
  { change: { mode: undefined }, error: 'invocation.mode: expected "start" or "resume", found nothing' },
  { change: { session_id: undefined }, error: "invocation.session_id: expected a non-empty string, found nothing" },
  { change: { session_id: "" }, error: 'invocation.session_id: expected a non-empty string, found ""' },
  { change: { prompt: undefined }, error: "invocation.prompt: expected a string, found nothing" },
  { change: { prompt: null }, error: "invocation.prompt: expected a string, found null" },
  { change: { prompt: ["a"] }, error: "invocation.prompt: expected a string, found a list" },
  { change: { project_dir: undefined }, error: "invocation.project_dir: expected a non-empty string, found nothing" },
  { change: { metadata: undefined }, error: "invocation.metadata: expected an object, found nothing" },
  { change: { metadata: [] }, error: "invocation.metadata: expected an object, found a list" },
  {
    change: { metadata: `${"é😀".repeat(20)}tail` },
    error: `invocation.metadata: expected an object, found "${"é😀".repeat(20)}…"`,
  },
  { change: { agent_blueprint: null }, error: "invocation.agent_blueprint: expected an object, found null" },
  { change: blueprint({ name: "" }), error: 'invocation.agent_blueprint.name: expected a non-empty string, found ""' },
  {
    change: blueprint({ system_prompt: {} }),
    error: "invocation.agent_blueprint.system_prompt: expected a string, found an object",
  },
  {
    change: blueprint({ mcp_servers: undefined }),
    error: "invocation.agent_blueprint.mcp_servers: expected an object, found nothing",
  },
  { change: blueprint({ mcp_servers: { m: "x" } }), error: `${AT_SERVER}: expected an object, found "x"` },
  { change: mcp({ type: "ftp" }), error: `${AT_SERVER}.type: expected "http" or "sse" or "stdio", found "ftp"` },
  { change: mcp({ url: undefined }), error: `${AT_SERVER}.url: expected a non-empty string, found nothing` },
  { change: mcp({ headers: { a: true } }), error: `${AT_SERVER}.headers.a: expected a string, found true` },
  { change: mcp({ type: "stdio" }), error: `${AT_SERVER}.command: expected a non-empty string, found nothing` },
  {
    change: blueprint({ output_schema: [] }),
    error: "invocation.agent_blueprint.output_schema: expected an object, found a list",
  },
  {
    change: mcp({ type: "stdio", command: "c", args: ["a", 1] }),
    error: `${AT_SERVER}.args[1]: expected a string, found a number`,
  },
  {
    change: mcp({ type: "stdio", command: "c", args: {} }),
    error: `${AT_SERVER}.args: expected a list, found an object`,
  },
  { change: { run_id: "" }, error: 'invocation.run_id: expected a non-empty string, found ""' },
  { change: { attempt: 0 }, error: "invocation.attempt: expected a positive integer, found a number" },
  { change: { attempt: 1.5 }, error: "invocation.attempt: expected a positive integer, found a number" },
  { change: { attempt: true }, error: "invocation.attempt: expected a positive integer, found true" },
  { change: { session_name: 5 }, error: "invocation.session_name: expected a non-empty string, found a number" },
  { change: { executor_config: "x" }, error: 'invocation.executor_config: expected an object, found "x"' },
  { change: { parameters: false }, error: "invocation.parameters: expected an object, found false" },
  { change: { callback: {} }, error: "invocation.callback.child_session_ids: expected a list, found nothing" },
  {
    change: { callback: { child_session_ids: ["ses_1", ""] } },
    error: 'invocation.callback.child_session_ids[1]: expected a non-empty string, found ""',
  },
];

/** Texts that are no document at all, with what the readers say. */
export const NO_DOCUMENT: [text: string, error: string][] = [
  ["", 'invocation: expected one JSON document, found ""'],
  ["hello", 'invocation: expected one JSON document, found "hello"'],
  ['{"a":NaN}', 'invocation: expected one JSON document, found "{\\"a\\":NaN}"'],
  [
    `{"prompt":"${"x".repeat(80)}`,
    `invocation: expected one JSON document, found "{\\"prompt\\":\\"${"x".repeat(29)}…"`,
  ],
  ["[]", "invocation: expected an object, found a list"],
  ["null", "invocation: expected an object, found null"],
];
