import { resolve } from "node:path";
import type { Command } from "commander";
import { BackupStoreResponseSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { Verbs } from "../cli.ts";

/** `ao backup`. */
export function addBackup(ao: Command, verbs: Verbs): void {
  ao.command("backup")
    .description("copy the store of a coordinator that runs")
    .argument("<file>", "new file, on the coordinator's host")
    .addHelpText("after", "\nExample:\n  ao backup /var/backups/coordinator-$(date +%F).db")
    .action(
      verbs.action(async (cli, file: string) => {
        // As long as it takes: the copy of a large store is a matter of minutes.
        const answer = await cli.runs.backupStore({ path: resolve(file) }, { timeoutMs: 0 });
        cli.printMessage(
          BackupStoreResponseSchema,
          answer,
          () => `copied the store to ${answer.path} (${answer.bytes} bytes)`,
        );
      }),
    );
}
