import { delimiter, dirname } from "node:path";

type Env = Readonly<Record<string, string | undefined>>;

/** A program of this package. */
export type Program = "ao" | "agent-runner" | "agent-coordinator";

/**
 * How the user has to call a program of ours, so that a hint can be typed as it stands: `npx ao` for who came by npx, plain `ao`
 * where the shell finds it, else its path beside the program that runs. `bin/launch.sh` says what was started in
 * AGENT_RUNNER_ARGV0.
 */
export function ownCommand(env: Env, program: Program = "ao"): string {
  const started = env["AGENT_RUNNER_ARGV0"] ?? "";
  // npm sets these for what it runs; `npm run dev` and the like are of a checkout, where npx finds us too.
  if (env["npm_command"] === "exec" || env["npm_lifecycle_event"] !== undefined) return `npx ${program}`;
  if (!started.includes("/")) return program;
  const folder = dirname(started);
  return (env["PATH"] ?? "").split(delimiter).includes(folder) ? program : `${folder}/${program}`;
}

/** A text whose commands of ours, such as `ao …`, are written as the user has to type them. */
export function asTyped(text: string, env: Env): string {
  return text.replaceAll(
    /`(ao|agent-runner|agent-coordinator)(?=[ `])/g,
    (_, program: Program) => `\`${ownCommand(env, program)}`,
  );
}

/** A help page whose commands, in its usage and its examples, are written as the user has to type them. */
export function helpAsTyped(help: string, env: Env): string {
  return asTyped(help, env).replaceAll(
    /^(Usage: | {2})(ao|agent-runner|agent-coordinator)(?=[ \n])/gm,
    (_, before: string, program: Program) => before + ownCommand(env, program),
  );
}
