import type { Command } from "commander";
import type { Verbs } from "../cli.ts";
import type { RunAo } from "../demo/context.ts";

/** `ao demo`: a coordinator and runners of its own, a handful of runs, and nothing left afterwards. */
export function addDemo(ao: Command, verbs: Verbs, runAo: RunAo): void {
  ao.command("demo")
    .description("show runs of every kind, with a coordinator and runners of its own, and clean up")
    .addHelpText("after", "\nExample:\n  ao demo")
    // Loaded when it is asked for: nobody else pays for it.
    .action(verbs.action(async () => (await import("../demo/demo.ts")).runDemo(runAo)));
}
