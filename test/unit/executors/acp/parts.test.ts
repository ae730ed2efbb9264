import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  abilitiesOf,
  acpServers,
  instructions,
  resumeMethod,
  transportsOf,
} from "../../../../executors/acp/abilities.ts";
import { acpCommand } from "../../../../executors/acp/command.ts";
import { acpConfig } from "../../../../executors/acp/config.ts";
import { directoryOf, readNotes, writeNotes } from "../../../../executors/acp/notes.ts";
import { answerPermission } from "../../../../executors/acp/permissions.ts";
import { modeChange, optionChange } from "../../../../executors/acp/settings.ts";
import { NOTHING_USED, TurnUsage } from "../../../../executors/acp/turn-usage.ts";
import { LineSplitter } from "../../../../executors/lib/agent/line-splitter.ts";
import { loadEntry } from "../../../../executors/lib/roster/load-roster.ts";
import { inRepository } from "../../../support/paths.ts";

describe("executor_config of acp", () => {
  it("allows everything without a word", () => {
    expect(acpConfig({ agent: "a" })).toEqual({
      ...{ agent: "a", program: undefined, model: undefined, permissionMode: undefined, env: {}, addDirs: [] },
      permissions: { default: "allow", allow: [], deny: [] },
    });
  });

  it.each([
    [{}, '"agent" of config is missing; name an agent of the roster: `ao executors ls`'],
    [{ agent: 1 }, '"agent" of config must be a string that is not empty, not 1'],
    [
      { agent: "a", env: { "A-B": "1" } },
      '"env" of config must be an object of names of variables with strings, not {"A-B":"1"}',
    ],
    [
      { agent: "a", permissions: { default: "ask" } },
      '"permissions.default" of config must be one of allow, deny, not "ask"',
    ],
    [
      { agent: "a", permissions: { alow: [] } },
      '"permissions.alow" of config is not known; known: permissions.default, permissions.allow, permissions.deny',
    ],
    [
      { agent: "a", max_turns: 1 },
      expect.stringContaining('"max_turns" of config is not known; known: agent,') as string,
    ],
  ])("refuses %o", (config, message) => {
    expect(() => acpConfig(config)).toThrow(expect.objectContaining({ reason: "BAD_CONFIG", message }) as Error);
  });
});

describe("permissions", () => {
  const options = ["allow_always", "reject_once", "allow_once"].map((kind) => ({ optionId: `o-${kind}`, kind }));
  const call = { names: ["web-fetch", "Fetch a page"], kind: "fetch" };

  it.each([
    [{ default: "allow", allow: [], deny: [] }, "o-allow_once"],
    [{ default: "deny", allow: [], deny: [] }, "o-reject_once"],
    [{ default: "deny", allow: ["fetch"], deny: [] }, "o-allow_once"],
    [{ default: "deny", allow: ["Fetch a page"], deny: [] }, "o-allow_once"],
    [{ default: "deny", allow: ["web-*"], deny: [] }, "o-allow_once"],
    [{ default: "deny", allow: ["web"], deny: [] }, "o-reject_once"],
    [{ default: "allow", allow: ["*"], deny: ["web-*"] }, "o-reject_once"],
  ] as const)("by %o are %s", (policy, optionId) => {
    expect(answerPermission(policy, call, options).optionId).toBe(optionId);
  });

  it("take what lasts longer where an agent offers nothing else", () => {
    const policy = { default: "allow", allow: [], deny: [] } as const;
    expect(answerPermission(policy, call, options.slice(0, 2)).optionId).toBe("o-allow_always");
    expect(answerPermission(policy, call, [])).toEqual({
      decision: "allow",
      optionId: undefined,
      because: "default: allow",
    });
  });
});

describe("what an agent offers", () => {
  it("is read from its answer, and nothing where it says nothing", () => {
    const agentCapabilities = {
      ...{ loadSession: true, mcpCapabilities: { http: true } },
      sessionCapabilities: { resume: {}, systemPrompt: null },
    };
    expect(abilitiesOf({ protocolVersion: 1, agentCapabilities, agentInfo: { version: "1.2.3" } }, "A")).toEqual({
      ...{ load: true, resume: true, mcpHttp: true, mcpSse: false, systemPrompt: false, additionalDirectories: false },
      version: "1.2.3",
    });
    expect(abilitiesOf({ protocolVersion: 1 }, "A")).toMatchObject({ load: false, resume: false, version: undefined });
  });

  it.each([2, "1", undefined])("is of no use in version %o", (protocolVersion) => {
    expect(() => abilitiesOf({ ...(protocolVersion !== undefined && { protocolVersion }) }, "A")).toThrow(
      "A speaks version",
    );
  });

  it.each([
    [{ load: true, resume: true }, undefined, "session/resume"],
    [{ load: true, resume: true }, "load", "session/load"],
    [{ load: false, resume: true }, "load", "session/resume"],
    [{ load: true, resume: false }, "resume", "session/load"],
    [{ load: false, resume: false }, "load", undefined],
  ] as const)("%o takes a conversation up, where the roster says %o, by %s", (abilities, better, method) => {
    expect(resumeMethod(abilities, better)).toBe(method);
  });

  it("decides which servers it gets", () => {
    const servers = {
      a: { type: "http", url: "http://a", headers: { H: "1" } },
      b: { type: "sse", url: "http://b", headers: {} },
      c: { type: "stdio", command: "c", args: [], env: {} },
    } as const;
    const { usable, unusable } = acpServers(structuredClone(servers) as never, { mcpHttp: true, mcpSse: false });
    expect(usable.map(({ name }) => name)).toEqual(["a", "c"]);
    expect(unusable).toEqual(["b"]);
  });

  it.each([
    ["none", true, false],
    ["acp", true, true],
    ["acp", false, false],
    ["home-file", false, true],
  ] as const)("of MCP over HTTP, by the roster %o and its own word %o, is %o", (transport, mcpHttp, expected) => {
    expect(transportsOf(transport, { mcpHttp, mcpSse: false })).toEqual({ mcpHttp: expected, mcpSse: false });
  });

  it("decides where the system prompt goes; none goes nowhere", () => {
    expect(instructions("", true, { systemPrompt: true })).toEqual({ session: {}, before: [] });
    expect(instructions("S", false, { systemPrompt: false })).toEqual({ session: {}, before: [] });
    expect(instructions("S", false, { systemPrompt: true }).session).not.toEqual({});
  });
});

describe("modes and options", () => {
  const address = "https://agentclientprotocol.com/protocol/session-modes#plan";
  const modes = {
    currentModeId: "a",
    availableModes: [
      { id: "a", name: "A" },
      { id: address, name: "Plan it" },
    ],
  };
  const configOptions = [
    {
      id: "mode",
      category: "mode",
      currentValue: "x",
      options: [
        { value: "x", name: "X" },
        { value: "y", name: "Y" },
      ],
    },
    {
      id: "m",
      category: "model",
      currentValue: "s",
      options: [
        {
          group: "g",
          options: [
            { value: "s", name: "S" },
            { value: "l", name: "Large" },
          ],
        },
      ],
    },
  ];

  it.each([
    [{ modes }, "a", { type: "none" }],
    [{ modes }, "plan", { type: "request", method: "session/set_mode", params: { modeId: address } }],
    [{ modes }, "plan IT", { type: "request", method: "session/set_mode", params: { modeId: address } }],
    [{ modes }, "z", { type: "not-offered", offered: ["a", address] }],
    [{ configOptions }, "x", { type: "none" }],
    [
      { configOptions },
      "y",
      { type: "request", method: "session/set_config_option", params: { configId: "mode", value: "y" } },
    ],
    [{}, "y", { type: "not-offered", offered: [] }],
  ])("of %o to %s", (opened, wanted, change) => {
    expect(modeChange(opened, wanted)).toEqual(change);
  });

  it("find a model in a group", () => {
    const params = { configId: "m", value: "l" };
    expect(optionChange({ configOptions }, "model", "large")).toEqual({
      type: "request",
      method: "session/set_config_option",
      params,
    });
    expect(optionChange({ configOptions }, "model", "xl")).toEqual({ type: "not-offered", offered: ["s", "l"] });
  });
});

describe("usage", () => {
  it.each([
    [
      "answer",
      {},
      { usage: { inputTokens: 10, outputTokens: 2, cachedReadTokens: 4, totalTokens: 12 } },
      { input_tokens: 10, output_tokens: 2 },
    ],
    [
      "answer",
      {},
      { usage: { inputTokens: 10, outputTokens: 2, cachedReadTokens: 4, totalTokens: 16 } },
      { input_tokens: 14, output_tokens: 2 },
    ],
    [
      "quota",
      {},
      { _meta: { quota: { token_count: { input_tokens: 5, output_tokens: 1 }, model_usage: [{ model: "m" }] } } },
      { input_tokens: 5, output_tokens: 1, model: "m" },
    ],
    ["chunks", { _meta: { usage: { inputTokens: 3, outputTokens: 1 } } }, {}, { input_tokens: 6, output_tokens: 2 }],
    ["none", { _meta: { usage: { inputTokens: 3, outputTokens: 1 } } }, {}, undefined],
    ["none", { sessionUpdate: "usage_update", cost: { amount: 3, currency: "USD" } }, {}, { cost_usd: 2 }],
    ["none", { sessionUpdate: "usage_update", cost: { amount: 3, currency: "credits" } }, {}, undefined],
  ] as const)("is read from %s: %o %o", (source, update, answer, event) => {
    const usage = new TurnUsage(source, { ...NOTHING_USED, costUsd: 1 });
    for (const _ of [1, 2]) usage.update({ sessionUpdate: "agent_message_chunk", ...update });
    usage.answer(answer as never);
    expect(usage.event).toEqual(event);
    expect(usage.used).toBe(event !== undefined && "input_tokens" in event);
  });

  it("of the whole conversation is that of the run, less what was before", () => {
    const usage = new TurnUsage("answer", { inputTokens: 100, outputTokens: 10, costUsd: 0 }, true);
    usage.answer({ usage: { inputTokens: 130, outputTokens: 15, totalTokens: 145 } });
    expect(usage.event).toEqual({ input_tokens: 30, output_tokens: 5 });
    expect(usage.ofAll).toEqual({ inputTokens: 130, outputTokens: 15 });
    const idle = new TurnUsage("answer", { inputTokens: 130, outputTokens: 15, costUsd: 0 }, true);
    idle.answer({ usage: { inputTokens: 130, outputTokens: 15, totalTokens: 145 } });
    expect(idle.used).toBe(false);
  });
});

describe("notes of a conversation", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "ao-notes-"));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it("are read as they were written, and are nothing when they are broken", () => {
    const notes = {
      conversation: "c",
      cwd: "/p",
      begun: true,
      used: { inputTokens: 1, outputTokens: 2, costUsd: 0.5 },
    };
    expect(readNotes(dir)).toBeUndefined();
    writeNotes(dir, notes);
    expect(readNotes(dir)).toEqual(notes);
    for (const broken of ['{"conversation":"c"', "{}", "[]", '{"conversation":1,"cwd":"/"}']) {
      writeFileSync(join(dir, "acp-state.json"), broken);
      expect(readNotes(dir)).toBeUndefined();
    }
  });

  it("name the directory, which must be there", () => {
    const notes = { conversation: "c", begun: true, used: NOTHING_USED };
    expect(directoryOf(undefined, "/here")).toBe("/here");
    expect(directoryOf({ ...notes, cwd: dir }, "/here")).toBe(dir);
    expect(() => directoryOf({ ...notes, cwd: join(dir, "gone") }, "/here")).toThrow("does not exist any more");
  });
});

describe("the command of an agent", () => {
  const dirs = { bundledDir: inRepository("executors/roster"), userDir: "/nowhere" };
  const found = { program: "/n", args: ["/a.js"], path: "/a.js", from: "folder" } as const;
  const facts = { found, env: { A: "1", B: "1" }, homeEnv: { HOME_OF_IT: "/h" }, cwd: "/p" };

  it("has the variables of the roster, of the private folder and of the profile, the later over the earlier", () => {
    const entry = loadEntry("opencode", dirs);
    const command = acpCommand({ ...facts, entry, config: acpConfig({ agent: "opencode", env: { B: "2" } }) });
    expect(command).toMatchObject({ program: "/n", args: ["/a.js", "acp"], cwd: "/p" });
    expect(command.env).toMatchObject({ A: "1", B: "2", HOME_OF_IT: "/h", OPENCODE_DISABLE_AUTOUPDATE: "1" });
    expect(command.env).toHaveProperty("OPENCODE_PERMISSION");
    const asked = acpCommand({
      ...facts,
      entry,
      config: acpConfig({ agent: "opencode", permissions: { deny: ["x"] } }),
    });
    expect(asked.env).not.toHaveProperty("OPENCODE_PERMISSION");
  });

  it("cannot be had of one that does not speak the protocol", () => {
    const entry = loadEntry("claude", dirs);
    expect(() => acpCommand({ ...facts, entry, config: acpConfig({ agent: "claude" }) })).toThrow(
      "use the executor claude-code",
    );
  });
});

it("a line that is too long leaves its beginning", () => {
  const splitter = new LineSplitter(10);
  expect(splitter.push(Buffer.from('{"method":'))).toEqual([]);
  expect(splitter.push(Buffer.from(`"x"${"y".repeat(900)}\nok\n`))).toEqual(["ok"]);
  expect(splitter).toMatchObject({ dropped: 1, droppedHead: `{"method":"x"${"y".repeat(243)}` });
});
