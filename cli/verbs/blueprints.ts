import { create, fromJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { readFile } from "node:fs/promises";
import type { AgentBlueprint } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import { AgentBlueprintSchema } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import type { BrokenBlueprint } from "../../gen/agentrunner/v1/blueprint_service_pb.ts";
import { ListBlueprintsResponseSchema } from "../../gen/agentrunner/v1/blueprint_service_pb.ts";
import { fileProblem } from "../../lib/config/file-problem.ts";
import type { Cli, Verbs } from "../cli.ts";
import { json } from "../cli.ts";
import { present, usage } from "../errors.ts";
import type { Cell } from "../text/format.ts";
import { shorten, table } from "../text/format.ts";
import { collectPages } from "../collect-pages.ts";
import { collect, count } from "../options.ts";
import { blueprintPage } from "../text/blueprints.ts";

/** `ao blueprints`: ls, get, create, rm, enable, disable. */
export function addBlueprints(ao: Command, verbs: Verbs): void {
  const blueprints = ao.command("blueprints").description("show and manage agent blueprints");
  addList(blueprints, verbs);
  blueprints
    .command("get <name>")
    .description("one blueprint, with its prompt")
    .addHelpText("after", "\nExample:\n  ao blueprints get reviewer -o json > reviewer.json")
    .action(
      verbs.action(async (cli, name: string) => show(cli, (await cli.blueprints.getBlueprint({ name })).blueprint)),
    );
  blueprints
    .command("create")
    .description("add a blueprint from a file as `ao blueprints get -o json` prints it")
    .requiredOption("-f, --file <file>", "JSON file: name, description, system_prompt, mcp_servers, demands, …")
    .addHelpText("after", "\nExample:\n  ao blueprints create -f reviewer.json")
    .action(
      verbs.action(async (cli, { file }: { file: string }) => {
        const blueprint = await readBlueprint(file);
        return show(cli, (await cli.blueprints.createBlueprint({ blueprint })).blueprint);
      }),
    );
  blueprints
    .command("rm <name>")
    .description("remove a blueprint; runs that exist keep what they were made with")
    .addHelpText("after", "\nExample:\n  ao blueprints rm reviewer")
    .action(
      verbs.action(async (cli, name: string) => {
        await cli.blueprints.deleteBlueprint({ name });
        cli.say(`${name} is removed`);
      }),
    );
  addSwitch(blueprints, verbs, "enable", "let runs use a blueprint");
  addSwitch(blueprints, verbs, "disable", "let no run use a blueprint");
}

function addList(blueprints: Command, verbs: Verbs): void {
  blueprints
    .command("ls", { isDefault: true })
    .description("blueprints by name; broken ones are told on stderr")
    .option("--tag <tag>", "only those that have the tag; repeat for more", collect)
    .option("--all", "also those that are disabled")
    .option("--limit <n>", "most blueprints to list", count, 1000)
    .addHelpText("after", "\nExample:\n  ao blueprints --tag review")
    .action(
      verbs.action(async (cli, { tag, all, limit }: { tag?: string[]; all?: true; limit: number }) => {
        const broken: BrokenBlueprint[] = [];
        const list = await collectPages(cli, limit, async (page) => {
          const request = { ...page, tags: tag ?? [], includeDisabled: all ?? false };
          const answer = await cli.blueprints.listBlueprints(request);
          broken.push(...answer.broken);
          return { items: answer.blueprints, nextPageToken: answer.nextPageToken };
        });
        if (cli.options.output === "json") {
          const whole = create(ListBlueprintsResponseSchema, { blueprints: list, broken });
          return cli.print(JSON.stringify(json(ListBlueprintsResponseSchema, whole), undefined, 2));
        }
        if (list.length === 0) cli.say("no blueprints; `ao blueprints create -f FILE` adds one");
        for (const { name, error } of broken) cli.say(`broken: ${name}: ${error}`);
        return cli.printList("blueprints", AgentBlueprintSchema, list, () => blueprintTable(list, cli));
      }),
    );
}

function addSwitch(blueprints: Command, verbs: Verbs, verb: "enable" | "disable", description: string): void {
  blueprints
    .command(`${verb} <name>`)
    .description(description)
    .addHelpText("after", `\nExample:\n  ao blueprints ${verb} reviewer`)
    .action(
      verbs.action(async (cli, name: string) => {
        const blueprint = create(AgentBlueprintSchema, { name, enabled: verb === "enable" });
        const updateMask = create(FieldMaskSchema, { paths: ["enabled"] });
        await cli.blueprints.updateBlueprint({ blueprint, updateMask });
        cli.say(`${name} is ${verb}d`);
      }),
    );
}

function blueprintTable(blueprints: readonly AgentBlueprint[], cli: Cli): string {
  const rows = blueprints.map(({ name, enabled, demands, tags, description }): Cell[] => [
    name,
    enabled ? ["green", "enabled"] : ["yellow", "disabled"],
    demands?.executorProfile || "any",
    tags.join(", ") || "-",
    shorten(description, 60),
  ]);
  return table(["BLUEPRINT", "STATE", "PROFILE", "TAGS", ""], rows, cli.paint);
}

function show(cli: Cli, received: AgentBlueprint | undefined): void {
  const blueprint = present(received, "blueprint");
  cli.printMessage(AgentBlueprintSchema, blueprint, () => blueprintPage(blueprint, cli.paint));
}

/** Reads what `get -o json` prints. @throws CliError (usage) naming the file. */
async function readBlueprint(file: string): Promise<AgentBlueprint> {
  try {
    return fromJson(AgentBlueprintSchema, JSON.parse(await readFile(file, "utf8")) as JsonValue);
  } catch (error) {
    throw usage(`cannot read a blueprint from ${file}: ${fileProblem(error, file)}`);
  }
}
