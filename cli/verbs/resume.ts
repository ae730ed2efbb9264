import { create } from "@bufbuild/protobuf";
import type { Command } from "commander";
import { InvocationMode } from "../../gen/agentrunner/v1/run_pb.ts";
import { CreateRunRequestSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { Cli, Verbs } from "../cli.ts";
import type { RunOptions } from "../options.ts";
import { addRunOptions, runRequest } from "../options.ts";
import { SESSION_OPERAND, parseRef, sessionIdOf } from "../refs.ts";
import { queueRun } from "./start.ts";

/** `ao resume SESSION`: a further run of a session. */
export function addResume(ao: Command, verbs: Verbs): void {
  addRunOptions(ao.command("resume").description("continue a session: queue its next run"))
    .argument("<session>", SESSION_OPERAND)
    .option("--any-runner", "let the run leave the runner that holds the session's files")
    .addHelpText("after", `\nExample:\n  ao resume hello --prompt "And again" --follow`)
    .action(
      verbs.action(async (cli, session: string, options: RunOptions & { anyRunner?: true }) => {
        const request = {
          ...(await runRequest(options, cli)),
          ...(await sessionKey(cli, session)),
          anyRunner: options.anyRunner ?? false,
          mode: InvocationMode.RESUME,
        };
        return queueRun(cli, create(CreateRunRequestSchema, request), options.follow ?? false);
      }),
    );
}

async function sessionKey(cli: Cli, text: string): Promise<{ sessionId: string } | { sessionName: string }> {
  const ref = parseRef(text);
  return ref.type === "name" ? { sessionName: ref.name } : { sessionId: await sessionIdOf(cli, text) };
}
