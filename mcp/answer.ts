import { rpcError } from "./body.ts";
import { isObject } from "./json.ts";

const EVENTS = "text/event-stream";

/** What a client says it takes, and what the library is told: it refuses every client that does not name both. */
export function acceptable(headers: Headers): { readonly events: boolean } {
  const events = (headers.get("accept") ?? "").includes(EVENTS);
  headers.set("accept", `application/json, ${EVENTS}`);
  return { events };
}

/**
 * The answer as one piece of JSON, for a client that did not ask for events: those that accept anything are mostly scripts,
 * which want to read it. A batch gets a list.
 */
export async function asJson(response: Response, batch: boolean): Promise<Response> {
  if (response.headers.get("content-type")?.startsWith(EVENTS) !== true) return response;
  const answers = messagesOf(await response.text()).filter((message) => isObject(message) && "id" in message);
  if (answers.length === 0) return Response.json(rpcError(-32_000, UNANSWERED), { status: 503 });
  return Response.json(batch ? answers : answers[0]);
}

const UNANSWERED = "the call was ended before it had an answer: call again, a start with the same request_id";

/** The messages of a stream of events; each stands in one line, as JSON does. */
function messagesOf(events: string): unknown[] {
  return events
    .split("\n")
    .filter((line) => line.startsWith("data:"))
    .map((line) => line.slice("data:".length).trim())
    .filter((data) => data !== "")
    .map((data) => JSON.parse(data) as unknown);
}
