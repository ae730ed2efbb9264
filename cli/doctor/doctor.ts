import type { Command } from "commander";
import { Runner_Presence } from "../../gen/agentrunner/v1/runner_pb.ts";
import { asTyped } from "../../lib/own-command.ts";
import { EXIT } from "../../lib/exit-codes.ts";
import type { Cli, Outcome, Verbs } from "../cli.ts";
import type { Check } from "./check.ts";
import { agentChecks } from "./agents.ts";
import { coordinatorChecks, echoCheck, runnerChecks } from "./coordinator.ts";
import { diskCheck, executorChecks, nodeCheck, orphanCheck, stateDirCheck, versionCheck } from "./host.ts";
import { programChecks } from "./programs.ts";
import type { Paint, Style } from "../text/format.ts";
import { clean } from "../text/format.ts";
import { wrap } from "../../lib/width.ts";

/** `ao doctor`: looks at this host, the coordinator and its runners. Exit 1 when something fails. */
export function addDoctor(ao: Command, verbs: Verbs): void {
  ao.command("doctor")
    .description("check this host, the coordinator and its runners")
    .option("--json", "as -o json")
    .addHelpText("after", "\nExample:\n  ao doctor --json")
    .action(verbs.action((cli, { json = false }: { json?: boolean }) => doctor(cli, json)));
}

async function doctor(cli: Cli, json: boolean): Outcome {
  const text = !json && (cli.options.output === "text" || cli.options.output === "name");
  const checks: Check[] = [];
  for await (const { help, ...rest } of allChecks(cli)) {
    const check = help === undefined ? rest : { ...rest, help: asTyped(help, cli.io.env) };
    checks.push(check);
    if (text) cli.print(checkText(check, cli.paint, cli.columns));
  }
  const ok = checks.every(({ status }) => status !== "fail");
  if (!text) cli.printJson({ ok, checks: checks.map((check) => ({ ...check, help: check.help ?? "" })) });
  return ok ? EXIT.ok : EXIT.failed;
}

async function* allChecks(cli: Cli): AsyncGenerator<Check, void> {
  yield nodeCheck();
  yield versionCheck();
  const { executors, stateDir, store } = yield* programChecks(cli.io.env);
  if (executors !== undefined) {
    yield* executorChecks(executors);
    yield* agentChecks(executors, cli.io.env);
  }
  if (stateDir !== undefined) yield stateDirCheck(stateDir);
  const places = [stateDir, store].filter((place) => place !== undefined);
  if (places.length > 0) yield await diskCheck(places);
  const reachable = yield* coordinatorChecks(cli);
  const runners = reachable ? yield* runnerChecks(cli) : undefined;
  const alive = runners?.filter(({ presence }) => presence !== Runner_Presence.AWAY);
  yield orphanCheck(new Set(alive?.map(({ bootId }) => bootId)));
  yield await echoCheck(cli, runners);
}

const STYLES: Record<Check["status"], Style> = { pass: "green", fail: "red", skip: "yellow", warn: "yellow" };

/** `PASS  node  v26.10.0`, and what to do on a line of its own. */
export function checkText({ name, status, detail, help }: Check, paint: Paint, columns = Infinity): string {
  const indent = " ".repeat(19);
  const head = `${paint(STYLES[status], status.toUpperCase())}  ${name.padEnd(12)} ${clean(detail)}`;
  const line = wrap(head, columns, indent);
  return help === undefined
    ? line
    : `${line}\n${wrap(`${indent}${paint("bold", "→")} ${clean(help)}`, columns, `${indent}  `)}`;
}
