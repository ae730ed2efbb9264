import type { AgentBlueprint } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import { demandsText, fields, objectText } from "./fields.ts";
import type { Paint } from "./format.ts";
import { clean, shorten } from "./format.ts";
import { table } from "./table.ts";
import type { Cell, Column } from "./table.ts";

const COLUMNS: readonly Column[] = [
  { title: "BLUEPRINT", min: 12, keep: 9 },
  { title: "STATE", keep: 8 },
  { title: "PROFILE", min: 8, keep: 5 },
  { title: "TAGS", min: 8, keep: 6 },
  { title: "", min: 16, keep: 7 },
];

/** `ao blueprints`. */
export function blueprintTable(blueprints: readonly AgentBlueprint[], paint: Paint, columns = Infinity): string {
  const rows = blueprints.map(({ name, enabled, demands, tags, description }): Cell[] => [
    name,
    enabled ? ["green", "enabled"] : ["yellow", "disabled"],
    demands?.executorProfile || "any",
    tags.join(", ") || "-",
    shorten(description, 60),
  ]);
  return table(COLUMNS, rows, paint, columns);
}

/** `ao blueprints get`. */
export function blueprintPage(blueprint: AgentBlueprint, paint: Paint, columns = Infinity): string {
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
      ["on_run_start", blueprint.hooks?.onRunStart?.command.join(" ") ?? ""],
      ["on_run_finish", blueprint.hooks?.onRunFinish?.command.join(" ") ?? ""],
      ...servers,
    ],
    paint,
    columns,
  );
  const head = `${paint("bold", name)}  ${enabled ? paint("green", "enabled") : paint("yellow", "disabled")}`;
  const prompt = systemPrompt.trimEnd().split("\n").map(clean).join("\n");
  return [head, facts, prompt].filter((part) => part !== "").join("\n\n");
}
