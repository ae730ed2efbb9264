import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { COMMAND_NAMES, CommandError, LONG_MS, parseCommands } from "../../executors/test-executor/commands.ts";
import { inRepository } from "../support/paths.ts";

describe("the commands of the test executor", () => {
  it.each([
    ["sleep 2s", [{ name: "sleep", value: 2_000 }]],
    ["sleep 1.5m", [{ name: "sleep", value: 90_000 }]],
    ["flood 10MB", [{ name: "flood", value: { bytes: 10_000_000, stream: "stdout" } }]],
    ["flood 2KiB stderr", [{ name: "flood", value: { bytes: 2_048, stream: "stderr" } }]],
    ["fail out of  disk", [{ name: "fail", value: "out of  disk" }]],
    ["fail", [{ name: "fail", value: "failed, as the prompt says" }]],
    ["exit 75", [{ name: "exit", value: 75 }]],
    ["fork", [{ name: "fork", value: LONG_MS }]],
    ["fork 30s", [{ name: "fork", value: 30_000 }]],
    ["print", [{ name: "print", value: "" }]],
    ["cwd; ;\r\n\n  env HOME ;", [{ name: "cwd" }, { name: "env", value: "HOME" }]],
    [
      'print json {"a;json {"b":1}\njson {"a":"x;y"}\nprint z',
      [
        { name: "print", value: 'json {"a' },
        { name: "json", value: { b: 1 } },
        { name: "json", value: { a: "x;y" } },
        { name: "print", value: "z" },
      ],
    ],
  ])("are read from the prompt %j", (prompt, commands) => {
    expect(parseCommands(prompt)).toEqual(commands);
  });

  it.each(["", " \n", "Please sleep 2s", "hello; sleep 2s", "sleepy", "toString", ";;"])(
    "are none in the prompt %j, which does not begin with one",
    (prompt) => {
      expect(parseCommands(prompt)).toEqual([]);
    },
  );

  it.each([
    ["sleep", 'sleep: expected a duration such as 500ms or 2s, up to 10m, found ""'],
    ["sleep 2", 'sleep: expected a duration such as 500ms or 2s, up to 10m, found "2"'],
    ["sleep 11m", 'sleep: expected a duration such as 500ms or 2s, up to 10m, found "11m"'],
    ["flood lots", 'flood: expected an amount such as 10MB, and stdout or stderr, found "lots"'],
    ["flood 1MB file", 'flood: expected an amount such as 10MB, and stdout or stderr, found "1MB file"'],
    ["exit 256", 'exit: expected a number from 0 to 255, found "256"'],
    ["exit -1", 'exit: expected a number from 0 to 255, found "-1"'],
    ["json [1]", 'json: expected a JSON object, found "[1]"'],
    ["json {", 'json: expected a JSON object, found "{"'],
    ["touch", 'touch: expected a value, found ""'],
    ["crash now", 'crash: expected nothing more, found "now"'],
    ["cwd; slep 2s", `unknown command "slep"; known are ${COMMAND_NAMES.join(", ")}`],
  ])("are refused in %j, saying why", (prompt, error) => {
    expect(() => parseCommands(prompt)).toThrow(new CommandError(error));
  });

  it("are commands, none, or a CommandError for every prompt", () => {
    const pieces = fc.constantFrom(...COMMAND_NAMES, " ", ";", "\n", "2s", "10MB", "{}", "x");
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(pieces).map((all) => all.join("")),
        ),
        (prompt) => {
          try {
            for (const { name } of parseCommands(prompt)) expect(COMMAND_NAMES).toContain(name);
          } catch (error) {
            expect(error).toBeInstanceOf(CommandError);
          }
        },
      ),
    );
  });

  it("are each explained in executors/README.md", () => {
    const readme = readFileSync(inRepository("executors/README.md"), "utf8");
    const table = readme.slice(readme.search(/^\| Command +\|/m));
    for (const name of COMMAND_NAMES) expect(table).toMatch(new RegExp(`^\\|.*\`${name}[ \`].* \\|`, "m"));
  });
});
