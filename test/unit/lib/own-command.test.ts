import { expect, it } from "vitest";
import { asTyped, helpAsTyped, ownCommand } from "../../../lib/own-command.ts";

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
  ["by its path here", { AGENT_RUNNER_ARGV0: "./ao", PATH: "/bin" }, "./ao"],
  [
    "beside a runner that was started by its path",
    { AGENT_RUNNER_ARGV0: "/x/bin/agent-runner", PATH: "/bin" },
    "/x/bin/ao",
  ],
  ["beside a runner that was started from PATH", { AGENT_RUNNER_ARGV0: "/x/bin/agent-runner", PATH: "/x/bin" }, "ao"],
])("%s, ao is called as the user has to type it", (_, env, command) => {
  expect(ownCommand(env)).toBe(command);
  expect(asTyped("start one with `ao dev`, or set X", env)).toBe(`start one with \`${command} dev\`, or set X`);
});

it("writes every program of ours as it has to be typed, in texts, usages and examples", () => {
  const env = { AGENT_RUNNER_ARGV0: "/x/bin/ao", PATH: "/bin" };
  expect(asTyped("`agent-runner` or `ao dev`, not `aoe` or ao", env)).toBe(
    "`/x/bin/agent-runner` or `/x/bin/ao dev`, not `aoe` or ao",
  );
  expect(helpAsTyped("Usage: ao start [name]\n\nExample:\n  ao start x\n  -a ao\n", env)).toBe(
    "Usage: /x/bin/ao start [name]\n\nExample:\n  /x/bin/ao start x\n  -a ao\n",
  );
});
