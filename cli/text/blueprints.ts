import type { AgentBlueprint } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import { demandsText, fields, objectText } from "./fields.ts";
import type { Paint } from "./format.ts";
import { clean } from "./format.ts";

/** `ao blueprints get`. */
export function blueprintPage(blueprint: AgentBlueprint, paint: Paint): string {
  const { name, enabled, description, demands, tags, mcpServers, systemPrompt } = blueprint;
  const servers = Object.entries(mcpServers).map(([server, { type, url, command }]): [string, string] => [
    `mcp ${server}`,
    `${type}  ${url || command}`,
  ]);
  const facts = fields(
    [
      ["description", description],
      ["demands", demandsText(demands)],
      ["tags", tags.join(", ")],
      ["parameters", objectText(blueprint.parametersSchema)],
      ["result", objectText(blueprint.outputSchema)],
      ...servers,
    ],
    paint,
  );
  const head = `${paint("bold", name)}  ${enabled ? paint("green", "enabled") : paint("yellow", "disabled")}`;
  const prompt = systemPrompt.trimEnd().split("\n").map(clean).join("\n");
  return [head, facts, prompt].filter((part) => part !== "").join("\n\n");
}
