import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import type { CallToolResult } from "@modelcontextprotocol/client";

/** Revisions of MCP that clients speak: with a handshake, and without. */
export const ERAS = { "2025": "legacy", "2026": { pin: "2026-07-28" } } as const;

type Answer = Record<string, unknown> & { next?: string };

const open: Client[] = [];

/** For afterEach: leaves every server. */
export async function leaveMcp(): Promise<void> {
  for (const client of open.splice(0)) await client.close();
}

/** The official MCP client, as an agent uses it. */
export class McpAgent {
  readonly client: Client;

  private constructor(client: Client) {
    this.client = client;
  }

  static async at(
    url: string,
    { era = "2026", headers = {} }: { era?: keyof typeof ERAS; headers?: Record<string, string> } = {},
  ): Promise<McpAgent> {
    const client = new Client({ name: "test", version: "1" }, { versionNegotiation: { mode: ERAS[era] } });
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
    open.push(client);
    return new McpAgent(client);
  }

  raw(name: string, args: Record<string, unknown> = {}): Promise<CallToolResult> {
    return this.client.callTool({ name, arguments: args });
  }

  /** The answer of a tool; throws its error. */
  async call(name: string, args: Record<string, unknown> = {}): Promise<Answer> {
    const { isError, content } = await this.raw(name, args);
    const text = textOf(content);
    if (isError === true) throw new Error(text);
    return JSON.parse(text) as Answer;
  }

  /** The text of a tool's error; throws when there is none. */
  async refusal(name: string, args: Record<string, unknown> = {}): Promise<string> {
    const { isError, content } = await this.raw(name, args);
    if (isError !== true) throw new Error(`${name} was not refused: ${textOf(content)}`);
    return textOf(content);
  }
}

function textOf(content: CallToolResult["content"]): string {
  return content.map((block) => (block.type === "text" ? block.text : "")).join("");
}
