import type { JsonObject } from "@bufbuild/protobuf";

/** A tool of the orchestrator refused, or cannot be reached. */
export class OrchestratorError extends Error {
  override readonly name = "OrchestratorError";
}

interface Answer {
  readonly result?: {
    readonly isError?: boolean;
    readonly content?: readonly { readonly text?: string }[];
    readonly structuredContent?: JsonObject;
  };
  readonly error?: { readonly message: string };
}

/**
 * Calls one of the orchestrator's MCP tools, at the URL that the runner has given this run, and returns its structured
 * content. MCP over HTTP needs no more than one POST for it. @throws OrchestratorError
 */
export async function callTool(name: string, args: JsonObject): Promise<JsonObject> {
  const url = process.env["AGENT_ORCHESTRATOR_MCP_URL"];
  if (url === undefined) throw new OrchestratorError("AGENT_ORCHESTRATOR_MCP_URL is not set; the runner sets it");
  const { result, error } = await post(url, { method: "tools/call", params: { name, arguments: args } });
  if (error !== undefined) throw new OrchestratorError(`${name}: ${error.message}`);
  if (result?.isError === true) throw new OrchestratorError(`${name}: ${result.content?.[0]?.text ?? "refused"}`);
  return result?.structuredContent ?? {};
}

const HEADERS = {
  "content-type": "application/json",
  accept: "application/json, text/event-stream",
  "mcp-protocol-version": "2025-06-18",
};

async function post(url: string, request: object): Promise<Answer> {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, ...request });
  let status: number;
  let text: string;
  try {
    const response = await fetch(url, { method: "POST", headers: HEADERS, body });
    [status, text] = [response.status, await response.text()];
  } catch (cause) {
    throw new OrchestratorError("the orchestrator cannot be reached", { cause });
  }
  // A server may answer with one JSON document, or with a stream of events of which the last is the answer.
  const json = text.startsWith("{") ? text : /^data: ?(\{.*)$/m.exec(text)?.[1];
  if (json === undefined) throw new OrchestratorError(`the orchestrator answered ${status}: ${text.slice(0, 200)}`);
  return JSON.parse(json) as Answer;
}
