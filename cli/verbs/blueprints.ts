import { create, fromJson } from "@bufbuild/protobuf";
import { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { readFile } from "node:fs/promises";
import type { AgentBlueprint } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import { AgentBlueprintSchema } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import type { BrokenBlueprint } from "../../gen/agentrunner/v1/blueprint_service_pb.ts";
import { BrokenBlueprintSchema } from "../../gen/agentrunner/v1/blueprint_service_pb.ts";
import { fileProblem } from "../../lib/config/file-problem.ts";
import { jsonProblemIn } from "../../lib/protocol/json-values.ts";
import { readJson } from "../../lib/protocol/json-text.ts";
import { READ_MAX_DEPTH } from "../../lib/protocol/limits.ts";
import { NotText, utf8Text } from "../../lib/text.ts";
import type { Cli, Verbs } from "../cli.ts";
import { json } from "../cli.ts";
import { present, usage } from "../errors.ts";
import { clean } from "../text/format.ts";
import { collectPages, sayTotal } from "../collect-pages.ts";
import { collect, count } from "../options.ts";
import { blueprintPage, blueprintTable } from "../text/blueprints.ts";

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
        const found = await collectPages(limit, async (page) => {
          const request = { ...page, tags: tag ?? [], includeDisabled: all ?? false };
          const answer = await cli.blueprints.listBlueprints(request);
          broken.push(...answer.broken);
          return { items: answer.blueprints, nextPageToken: answer.nextPageToken };
        });
        const { list } = found;
        if (list.length === 0) cli.say("no blueprints; `ao blueprints create -f FILE` adds one");
        for (const { name, error } of broken) cli.say(`broken: ${clean(name)}: ${clean(error)}`);
        const more = { broken: broken.map((it) => json(BrokenBlueprintSchema, it)) };
        cli.printList(
          "blueprints",
          AgentBlueprintSchema,
          list,
          () => blueprintTable(list, cli.paint, cli.columns),
          more,
        );
        sayTotal(cli, found, "blueprint");
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

function show(cli: Cli, received: AgentBlueprint | undefined): void {
  const blueprint = present(received, "blueprint");
  cli.printMessage(AgentBlueprintSchema, blueprint, () => blueprintPage(blueprint, cli.paint, cli.columns));
}

/** Reads what `get -o json` prints. @throws CliError (usage) naming the file. */
async function readBlueprint(file: string): Promise<AgentBlueprint> {
  try {
    const json = readJson(utf8Text(await readFile(file)));
    const blueprint = fromJson(AgentBlueprintSchema, json, { recursionLimit: READ_MAX_DEPTH });
    const problem = jsonProblemIn(AgentBlueprintSchema, blueprint);
    if (problem !== undefined) throw new Error(problem);
    return blueprint;
  } catch (error) {
    if (error instanceof NotText) throw usage(`cannot read a blueprint from ${file}: it ${error.message}`);
    throw usage(`cannot read a blueprint from ${file}: ${fileProblem(error, file)}`);
  }
}
