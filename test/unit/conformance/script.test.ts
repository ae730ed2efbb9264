import { describe, expect, it } from "vitest";
import type { OfferedTool, Turn } from "../../../conformance/model-stub/conversation.ts";
import { scriptIn, stepOf } from "../../../conformance/model-stub/script.ts";
import { filled, replyOf, toolNamed } from "../../../conformance/model-stub/tools.ts";

const user = (...texts: string[]): Turn => ({ who: "user", texts });
const model = (text = ""): Turn => ({ who: "model", texts: [text] });
const tool = (text = ""): Turn => ({ who: "tool", texts: [text] });
const offered = (name: string, properties: object = {}, required: string[] = []): OfferedTool => ({
  name,
  schema: { type: "object", properties, required },
});
const SHELL = offered("bash", { command: { type: "string" } }, ["command"]);

const at = (turns: readonly Turn[], tools: readonly OfferedTool[] = [SHELL]) => {
  const { name, argument } = stepOf({ turns, tools });
  return argument === "" ? name : `${name}:${argument}`;
};

describe("the script in a prompt", () => {
  it.each([
    ["[[bash; mcp; text:DONE]]", ["bash", "mcp", "text:DONE"]],
    ["before [[text:a; b]] after", ["text:a; b"]],
    ['[[tool:x:{"a":[[1]]}; text]]', ['tool:x:{"a":[[1]]}', "text"]],
    ["<<err:401>>", ["err:401"]],
    ["nothing", undefined],
    ["[[bash:echo 1; echo 2;\n text:x]]", ["bash:echo 1; echo 2", "text:x"]],
  ])("of %j is %j", (text, steps) => {
    expect(scriptIn(text)).toEqual(steps);
  });

  it("goes on by one step with each turn of the model", () => {
    const prompt = user("[[bash:ls; text:one; text:two]]");
    expect(at([prompt])).toBe("bash:ls");
    expect(at([prompt, model(), tool()])).toBe("text:one");
    expect(at([prompt, model(), model(), tool(), tool()])).toBe("text:one");
    expect(at([prompt, model(), tool(), model("one"), user("go on")])).toBe("text:two");
    expect(at([prompt, model(), tool(), model(), user("a"), model(), user("b")])).toBe("text");
  });

  it("is the newest that the user has said", () => {
    expect(at([user("[[text:old]]"), model("old"), user("[[text:new]]")])).toBe("text:new");
    expect(at([user("[[text:old]]", "<note>"), model(), user("no script")])).toBe("text");
    expect(at([{ who: "system", texts: ["[[err:500]]"] }, user("[[text:mine]]")])).toBe("text:mine");
  });

  it("says a word when it is over, has no step of that name, or the request has no tools", () => {
    expect(at([user("hello")])).toBe("text");
    expect(at([user("[[dance]]")])).toBe("text:dance");
    expect(at([user("[[bash:ls]]")], [])).toBe("text:no tools were offered");
  });

  it("knows a request that is repeated from the next one", () => {
    const key = (turns: Turn[]) => stepOf({ turns, tools: [] }).key;
    const first = [user("[[err1:500; text]]")];
    expect(key(first)).toBe(key([...first]));
    expect(key(first)).not.toBe(key([...first, model(), user("x")]));
    expect(key(first)).not.toBe(key([user("again [[err1:500; text]]")]));
  });
});

describe("a step", () => {
  const reply = (
    name: "bash" | "mcp" | "tool" | "structured" | "text" | "slow",
    argument: string,
    tools: OfferedTool[],
  ) => replyOf({ name, argument, key: "" }, tools);

  it("calls the shell that is offered, in the form that it takes", () => {
    expect(reply("bash", "ls", [SHELL])).toEqual({ type: "call", tool: SHELL, args: { command: "ls" } });
    const list = offered("shell", { command: { type: "array" }, timeout: { type: "number" } }, ["command", "timeout"]);
    expect(reply("bash", "ls", [list])).toMatchObject({ args: { command: ["bash", "-lc", "ls"], timeout: 1000 } });
    expect(reply("bash", "ls", [offered("exec_command", { cmd: {} })])).toMatchObject({ args: { cmd: "ls" } });
    expect(reply("bash", "ls", [offered("run_commands", { commands: {} })])).toMatchObject({
      args: { commands: ["ls"] },
    });
    expect(reply("bash", "", [offered("read")])).toEqual({
      type: "text",
      text: "NOT-OFFERED: a shell; offered: read",
    });
  });

  it.each([
    "start_agent_session",
    "mcp__orchestrator__start_agent_session",
    "orchestrator_start_agent_session",
    "orchestrator-start_agent_session",
    "orchestrator.start-agent-session",
    "mcp_orchestrator_start_agent_session",
  ])("finds the orchestrator's tool as %s", (name) => {
    expect(toolNamed("start_agent_session", [offered("restart_agent"), offered(name)])?.name).toBe(name);
  });

  it("takes no tool whose name merely ends so", () => {
    expect(toolNamed("session", [offered("obsession")])).toBeUndefined();
  });

  it("calls a tool with the arguments given, and says what is wrong with them", () => {
    const start = offered("mcp__o__start_agent_session", { prompt: { type: "string" } });
    expect(reply("tool", 'start_agent_session:{"prompt":"a:b"}', [start])).toMatchObject({ args: { prompt: "a:b" } });
    expect(reply("mcp", "", [start])).toMatchObject({ tool: start, args: { prompt: "<<text:CHILD-OK>>" } });
    expect(reply("tool", "start_agent_session:{", [start])).toMatchObject({
      text: expect.stringContaining("SCRIPT-ERROR"),
    });
    expect(reply("tool", "nothing:{}", [{ ...start, namespace: "o" }])).toMatchObject({
      text: "NOT-OFFERED: nothing; offered: o.mcp__o__start_agent_session",
    });
  });

  it("gives structured output by the tool for it, else as text", () => {
    const structured = offered("StructuredOutput");
    expect(reply("structured", '{"a":1}', [structured])).toEqual({ type: "call", tool: structured, args: { a: 1 } });
    expect(reply("structured", '{"a":1}', [])).toEqual({ type: "text", text: '{"a":1}' });
    expect(reply("slow", "3", [])).toEqual({ type: "text", text: "STUB-OK" });
  });

  it("fills in what the schema requires", () => {
    const schema = {
      properties: {
        text: { type: "string" },
        choice: { enum: ["x", "y"] },
        fixed: { const: 7 },
        given: { default: "d" },
        flag: { type: "boolean" },
        list: { type: "array" },
        some: { type: "array", minItems: 1, items: { type: ["null", "integer"], minimum: 5 } },
        inner: { type: "object", properties: { n: { anyOf: [{ type: "number" }] } }, required: ["n"] },
        free: { type: "string" },
      },
      required: ["text", "choice", "fixed", "given", "flag", "list", "some", "inner", "unknown"],
    };
    expect(filled(schema, { text: "mine" })).toEqual({
      text: "mine",
      choice: "x",
      fixed: 7,
      given: "d",
      flag: false,
      list: [],
      some: [5],
      inner: { n: 1000 },
      unknown: "stub",
    });
  });
});
