import { delimiter, join } from "node:path";

type Env = Readonly<Record<string, string | undefined>>;

/**
 * How the user called `ao`, so that a hint can be typed as it stands: `npx ao`, plain `ao` where the shell finds it, else the path
 * of the program. `bin/launch.sh` says what was started in AGENT_RUNNER_ARGV0.
 */
export function ownCommand(env: Env): string {
  const program = env["AGENT_RUNNER_ARGV0"] ?? "";
  // npm sets these for what it runs; `npm run dev` and the like are of a checkout, where npx finds us too.
  if (env["npm_command"] === "exec" || env["npm_lifecycle_event"] !== undefined) return "npx ao";
  if (program === "") return "ao";
  const onPath = (env["PATH"] ?? "").split(delimiter).some((dir) => join(dir, "ao") === program);
  return onPath ? "ao" : program;
}

/** A hint whose `ao …` commands are written as the user has to type them. */
export function asTyped(hint: string, env: Env): string {
  return hint.replaceAll("`ao ", `\`${ownCommand(env)} `);
}
