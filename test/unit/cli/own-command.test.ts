import { expect, it } from "vitest";
import { asTyped, ownCommand } from "../../../cli/own-command.ts";

it.each([
  ["started by nobody that says so", {}, "ao"],
  [
    "by npx",
    { npm_command: "exec", AGENT_RUNNER_ARGV0: "/p/node_modules/.bin/ao", PATH: "/p/node_modules/.bin" },
    "npx ao",
  ],
  ["by an npm script", { npm_lifecycle_event: "dev" }, "npx ao"],
  ["by its name, from PATH", { AGENT_RUNNER_ARGV0: "/usr/local/bin/ao", PATH: "/bin:/usr/local/bin" }, "ao"],
  ["by its path", { AGENT_RUNNER_ARGV0: "../agent-runner/bin/ao", PATH: "/bin" }, "../agent-runner/bin/ao"],
])("%s, ao is called as the user has to type it", (_, env, command) => {
  expect(ownCommand(env)).toBe(command);
  expect(asTyped("start one with `ao dev`, or set X", env)).toBe(`start one with \`${command} dev\`, or set X`);
});
