import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { describe, expect, it } from "vitest";
import { pinned } from "../../../executors/lib/roster/agent-version.ts";
import { installCommand } from "../../../executors/lib/roster/find-program.ts";
import { loadRoster } from "../../../executors/lib/roster/load-roster.ts";
import { parseRosterEntry, parsePart } from "../../../executors/lib/roster/parse-entry.ts";
import { inRepository } from "../../support/paths.ts";

const page = readFileSync(inRepository("docs/guide/agents.md"), "utf8");
const { entries } = loadRoster({ bundledDir: inRepository("executors/roster"), userDir: "/nowhere" });

/** Sections of the page by heading. */
const sections = new Map(
  page.split(/^## /m).map((text) => [text.slice(0, text.indexOf("\n")), text.slice(text.indexOf("\n"))]),
);

describe("the page of the agents", () => {
  it.each(entries.map((entry) => [entry.label, entry] as const))("says of %s what the roster says", (label, entry) => {
    const section = sections.get(label) ?? "";
    const env = { HOME: "/HOME", PATH: dirname(process.execPath) };
    const install = installCommand(entry, env).replaceAll("/HOME", "~");
    const { endpoint, lacks, limits } = entry;
    const facts = [
      ...[
        `\`-x ${entry.name}\``,
        pinned(entry),
        install.replaceAll(`${process.platform}-${process.arch}`, "linux-x64"),
      ],
      ...[`\`${entry.executor}\``, `${entry.install.sizeMb} MB`, `${entry.install.memoryMb} MB`, entry.install.needs],
      ...[...endpoint.keys, ...endpoint.logins.map((file) => `~/${file}`), endpoint.url, endpoint.model].map(
        (name) => name && `\`${name}\``,
      ),
      ...[endpoint.loginHint, limits.retriesEnv, ...Object.values(lacks)],
      ...[limits.maxTurnsFlag && "turns", limits.maxCostFlag && "money", limits.maxSecondsFlag && "time"],
    ].filter((fact) => fact !== undefined);
    expect(facts.filter((fact) => !section.includes(fact))).toEqual([]);
  });

  it("shows a file of one's own that can be used", () => {
    const [, yaml = ""] = /^```yaml\n(.*?)^```$/ms.exec(page) ?? [];
    const part = (name: string) => parsePart(readFileSync(inRepository(`executors/roster/${name}.yaml`), "utf8"));
    expect(parseRosterEntry(yaml, "mine", part)).toMatchObject({ label: "My models", endpoint: { keys: ["MY_KEY"] } });
  });
});
