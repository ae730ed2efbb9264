import { create } from "@bufbuild/protobuf";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { McpServerSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import type { McpServer } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { BlueprintError, isFilled, list, object, optional, printable, refuse, string } from "./reads.ts";
import { meantKey, plainKey } from "./slips.ts";

/** Names that transports have in files of other programs, in small letters without `-` and `_`. */
const TYPES: Readonly<Record<string, "http" | "sse" | "stdio">> = {
  http: "http",
  streamablehttp: "http",
  sse: "sse",
  stdio: "stdio",
};

/** What other programs call the keys of a server. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  serverurl: "url",
  httpurl: "url",
  baseurl: "url",
  endpoint: "url",
  uri: "url",
  cmd: "command",
  arguments: "args",
  environment: "env",
  transport: "type",
  transporttype: "type",
};

/** Servers by name, from the object that holds them. What is ignored of them is told in `warnings`. */
export function serversOf(value: JsonValue | undefined, at: string, warnings: string[]): [string, McpServer][] {
  return Object.entries(optional(object)(value, at) ?? {}).map(([name, item]) => {
    if (name === "") throw new BlueprintError(`${at}: a server needs a name`);
    const place = `${at}.${printable(name, at)}`;
    return [name, serverOf(object(item, place), place, warnings)];
  });
}

function serverOf(json: JsonObject, at: string, warnings: string[]): McpServer {
  const written = optional(string)(json["type"], `${at}.type`) ?? (json["command"] === undefined ? "http" : "stdio");
  const plain = plainKey(written);
  const type = Object.hasOwn(TYPES, plain) ? TYPES[plain] : undefined;
  if (type === undefined) return refuse(`${at}.type`, '"http", "sse" or "stdio"', written);
  lookAtOthers(json, at, type, warnings);
  if (type !== "stdio") {
    const headers = optional(strings)(json["headers"], `${at}.headers`) ?? {};
    for (const [name, text] of Object.entries(headers)) checkHeader(name, text, `${at}.headers`);
    return create(McpServerSchema, { type, url: printable(filled(json["url"], `${at}.url`), `${at}.url`), headers });
  }
  const command = withoutNul(filled(json["command"], `${at}.command`), `${at}.command`);
  const args = (optional(list(string))(json["args"], `${at}.args`) ?? []).map((arg) => withoutNul(arg, `${at}.args`));
  const env = optional(strings)(json["env"], `${at}.env`) ?? {};
  for (const [name, text] of Object.entries(env)) checkVariable(name, text, `${at}.env`);
  return create(McpServerSchema, { type, command, args, env });
}

/** Refuses keys without which the server would be another one, and warns of the others. */
function lookAtOthers(json: JsonObject, at: string, type: string, warnings: string[]): void {
  if (json["disabled"] === true || json["enabled"] === false) {
    const key = json["disabled"] === true ? "disabled" : "enabled";
    throw new BlueprintError(`${at}.${key}: a server cannot be turned off here; take it out of the file`);
  }
  const known = type === "stdio" ? ["command", "args", "env"] : ["url", "headers"];
  for (const [key, value] of Object.entries(json)) {
    if (key === "type" || known.includes(key)) continue;
    const meant = isFilled(value) ? meantKey(key, ["type", ...known], OTHER_NAMES) : undefined;
    if (meant !== undefined && json[meant] === undefined) {
      throw new BlueprintError(`${at}.${key} is not known; did you mean ${meant}?`);
    }
    warnings.push(`${at}.${key} is not known of a ${type} server and ignored`);
  }
}

function checkHeader(name: string, text: string, at: string): void {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) {
    throw new BlueprintError(`${at}: ${JSON.stringify(name).slice(0, 60)} is no name of an HTTP header`);
  }
  printable(text.replaceAll("\t", " "), `${at}.${name}`);
}

function checkVariable(name: string, text: string, at: string): void {
  if (name === "" || name.includes("=")) {
    throw new BlueprintError(`${at}: ${JSON.stringify(name).slice(0, 60)} is no name of a variable`);
  }
  withoutNul(text, `${at}.${printable(name, at)}`);
}

/** No program can be given a NUL, in its name, its arguments or its environment. */
function withoutNul(text: string, at: string): string {
  if (!text.includes("\0")) return text;
  throw new BlueprintError(`${at}: must not hold a NUL character`);
}

function filled(value: JsonValue | undefined, at: string): string {
  return typeof value === "string" && value !== "" ? value : refuse(at, "a non-empty string", value);
}

function strings(value: JsonValue | undefined, at: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(object(value, at)).map(([key, item]) => [key, string(item, `${at}.${key}`)]),
  );
}

/** A server as a file has it. */
export function serverJson({ type, url, headers, command, args, env }: McpServer): JsonObject {
  const of = type === "stdio" ? { command, args: [...args], env: { ...env } } : { url, headers: { ...headers } };
  return { type, ...Object.fromEntries(Object.entries(of).filter(([, value]) => isFilled(value))) };
}
