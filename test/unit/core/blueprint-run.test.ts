import { create } from "@bufbuild/protobuf";
import type { JsonObject } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  agentRun as agentRunOf,
  parametersToJudge,
  resultProblem as problemOf,
} from "../../../coordinator/core/blueprints/blueprint-run.ts";
import { schemaProblem, violations } from "../../../coordinator/core/blueprints/json-schema.ts";
import type { Asked } from "../../../coordinator/core/blueprints/blueprint-run.ts";
import type { AgentBlueprint } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import { AgentBlueprintSchema } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import { DemandsSchema } from "../../../gen/agentrunner/v1/run_pb.ts";

const SCHEMA = {
  type: "object",
  properties: { topic: { type: "string" }, lines: { type: "string" }, count: { type: "integer" } },
  required: ["topic"],
  additionalProperties: false,
} satisfies JsonObject;

const agent = (more: object = {}) => create(AgentBlueprintSchema, { name: "reviewer", enabled: true, ...more });
/** With the violations that the coordinator finds before. */
const agentRun = (asked: Asked, blueprint: AgentBlueprint | undefined, resumes: boolean) => {
  const judged = parametersToJudge(asked.parameters, blueprint, resumes);
  return agentRunOf(asked, blueprint, resumes, judged && violations(judged.schema, judged.value, "parameters"));
};
const resultProblem = (blueprint: AgentBlueprint, data: JsonObject | undefined, awaits?: boolean) => {
  const { outputSchema: schema } = blueprint;
  return problemOf(blueprint, data, schema && data && violations(schema, data, "data"), awaits);
};
const withSchema = agent({ parametersSchema: SCHEMA });
const ok = (prompt: string) => ({ type: "ok", prompt, demands: undefined });

describe("the text of a run", () => {
  it("is the prompt as it is, with and without an agent", () => {
    expect(agentRun({ prompt: "go" }, undefined, false)).toEqual(ok("go"));
    expect(agentRun({ prompt: "go", parameters: { any: [1] } }, agent(), false)).toEqual(ok("go"));
    expect(agentRun({ prompt: "go", parameters: { topic: "x" } }, withSchema, false)).toEqual(ok("go"));
  });

  it("is made of the parameters, in the order of the schema, when the agent has one and there is no prompt", () => {
    const parameters = { zoo: { a: 1 }, count: 3, lines: "one\ntwo", topic: "cats", aaa: [true, null] };
    const open = agent({ parametersSchema: { ...SCHEMA, additionalProperties: true } });
    const text = [
      "<inputs>",
      "topic: cats",
      "lines: ",
      "  one",
      "  two",
      "count: 3",
      "aaa: [true,null]",
      'zoo: {"a":1}',
      "</inputs>",
    ];
    expect(agentRun({ prompt: "", parameters }, open, false)).toEqual(ok(text.join("\n")));
  });

  it("is refused when there is neither a prompt nor what could make one", () => {
    const refused = (message: string) => ({ type: "refused", message });
    const needed = "a run needs a text for the agent";
    expect(agentRun({ prompt: "" }, undefined, false)).toEqual(refused(`prompt: ${needed}`));
    expect(agentRun({ prompt: "", parameters: { a: 1 } }, agent(), false)).toEqual(refused(`prompt: ${needed}`));
    const anything = agent({ parametersSchema: {} });
    expect(agentRun({ prompt: "" }, anything, false)).toEqual(refused(`prompt or parameters: ${needed}`));
  });
});

describe("the parameters of a run", () => {
  it("are refused with the path and reason of everything that does not fit", () => {
    const parameters = { count: 1.5, more: 1 };
    expect(agentRun({ prompt: "go", parameters }, withSchema, false)).toEqual({
      type: "refused",
      message:
        "agent blueprint reviewer: parameters must have required property 'topic'; " +
        'parameters must NOT have additional properties: "more"; parameters/count must be integer',
    });
    expect(agentRun({ prompt: "go" }, withSchema, false).type).toBe("refused");
  });

  it("of a resume may be left out, and must fit when they are not", () => {
    expect(agentRun({ prompt: "go on" }, withSchema, true)).toEqual(ok("go on"));
    expect(agentRun({ prompt: "go on", parameters: {} }, withSchema, true).type).toBe("refused");
  });

  it("that nobody has judged make no run", () => {
    expect(agentRunOf({ prompt: "go" }, withSchema, false, undefined)).toEqual({
      type: "refused",
      message: "the session has just changed: repeat the call",
    });
    const strict = agent({ outputSchema: SCHEMA });
    expect(problemOf(strict, { topic: "x" }, undefined)).toMatch(/were not judged$/);
  });
});

describe("the demands of a run", () => {
  const demanding = agent({ demands: { executorProfile: "coding", tags: ["docker", "gpu"] } });
  const asking = (demands: object) =>
    agentRun({ prompt: "go", demands: create(DemandsSchema, demands) }, demanding, false);

  it("are those of the agent and of the request together", () => {
    expect(agentRun({ prompt: "go" }, demanding, false)).toMatchObject({ demands: demanding.demands });
    expect(asking({ executorProfile: "coding", hostname: "h", projectDir: "/p", tags: ["gpu", "big"] })).toMatchObject({
      demands: { executorProfile: "coding", hostname: "h", projectDir: "/p", tags: ["docker", "gpu", "big"] },
    });
    const demands = create(DemandsSchema, { hostname: "h" });
    expect(agentRun({ prompt: "go", demands }, agent(), false)).toMatchObject({ demands });
  });

  it("cannot take back or change what the agent demands", () => {
    expect(asking({ executorProfile: "other" })).toEqual({
      type: "refused",
      message:
        "demands.executor_profile: agent blueprint reviewer demands coding, not other; a run can only add demands",
    });
    const tags = Array.from({ length: 63 }, (_, i) => `t${i}`);
    expect(asking({ tags })).toMatchObject({ type: "refused", message: expect.stringContaining("65 together") });
  });
});

describe("a result", () => {
  it("is right without an output_schema, whatever it holds", () => {
    expect(resultProblem(agent(), undefined)).toBeUndefined();
  });

  it("must have data that fit the output_schema", () => {
    const strict = agent({ outputSchema: SCHEMA });
    expect(resultProblem(strict, { topic: "x" })).toBeUndefined();
    expect(resultProblem(strict, undefined, true), "a turn that waits for children").toBeUndefined();
    expect(resultProblem(strict, { topic: 1 }, true), "but its data are judged").toMatch(/topic must be string/);
    expect(resultProblem(strict, undefined)).toBe("output_schema of agent blueprint reviewer: the result has no data");
    expect(resultProblem(strict, { topic: 1 })).toBe(
      "output_schema of agent blueprint reviewer: data/topic must be string",
    );
  });
});

describe("a JSON Schema", () => {
  it("is of the draft that it names, and of 2020-12 when it names none", () => {
    const named = { $schema: "https://json-schema.org/draft/2020-12/schema", prefixItems: [{ type: "string" }] };
    expect(violations(named, [1], "v")).toEqual(["v/0 must be string"]);
    expect(violations({ prefixItems: [{ type: "string" }] }, [1], "v")).toEqual(["v/0 must be string"]);
    const draft07 = { $schema: "http://json-schema.org/draft-07/schema#", items: [{ type: "string" }] };
    expect(violations(draft07, [1], "v")).toEqual(["v/0 must be string"]);
    expect(violations({ items: [{ type: "string" }] }, [1], "v"), "only draft-07 has a list of items").toEqual([
      "v/0 must be string",
    ]);
    expect(schemaProblem({ ...draft07, $schema: named.$schema })).toMatch(/items/);
    expect(schemaProblem({ $schema: 7 })).toMatch(/^\$schema 7 is not known/);
  });

  it.each([
    ["the root", { type: "object", properties: { children: { type: "array", items: { $ref: "#" } } } }],
    [
      "the root of a draft-07 schema",
      { $schema: "http://json-schema.org/draft-07/schema#", properties: { children: { items: { $ref: "#" } } } },
    ],
    ["the root of one with an empty $id", { $id: "", properties: { children: { items: { $ref: "#" } } } }],
    [
      "the root of one with an $id",
      { $id: "https://example.com/tree", properties: { children: { items: { $ref: "#" } } } },
    ],
    [
      "a definition",
      {
        $ref: "#/$defs/n",
        $defs: { n: { type: "object", properties: { children: { items: { $ref: "#/$defs/n" } } } } },
      },
    ],
    [
      "an anchor",
      {
        $ref: "#n",
        $defs: { n: { $anchor: "n", type: "object", properties: { children: { items: { $ref: "#n" } } } } },
      },
    ],
    ["a dynamic anchor", { $dynamicAnchor: "n", properties: { children: { items: { $dynamicRef: "#n" } } } }],
  ])("may refer to itself by %s", (_, schema) => {
    const typed = { ...schema, type: "object" };
    expect(schemaProblem(typed)).toBeUndefined();
    expect(violations(typed, { children: [{ children: [] }] }, "v")).toEqual([]);
    expect(violations(typed, { children: [{ children: [1] }] }, "v")).toEqual([
      "v/children/0/children/0 must be object",
    ]);
  });

  it("may carry keywords and formats that nobody knows, and may not be async", () => {
    expect(violations({ "x-order": 1, format: "zip-code" }, "x", "v")).toEqual([]);
    expect(schemaProblem({ $async: true })).toMatch(/async/);
  });

  it("lists the first 20 of what does not fit, and values that would", () => {
    const list = violations({ items: { enum: ["a", 1] } }, Array(23).fill("z"), "v");
    expect(list).toHaveLength(21);
    expect([list[0], list.at(-1)]).toEqual(['v/0 must be equal to one of the allowed values: "a", 1', "and 3 more"]);
    expect(violations({ const: { a: 1 } }, 1, "v")).toEqual(['v must be equal to constant: {"a":1}']);
  });

  it("is told apart from another one with the same $id, that of a draft as well", () => {
    for (const $id of ["http://json-schema.org/draft-07/schema", "https://json-schema.org/draft/2020-12/schema"]) {
      for (const $schema of [$id, undefined]) {
        const schema = { $id, ...($schema && { $schema }), type: "string" };
        expect(violations(schema, 1, "v")).toEqual(["v must be string"]);
        expect(schemaProblem({ ...($schema && { $schema }), type: "strin" })).toMatch(/must be equal/);
      }
    }
    const id = "https://example.com/s";
    expect(violations({ $id: id, type: "string" }, 1, "v")).toEqual(["v must be string"]);
    expect(violations({ $id: id, type: "number" }, 1, "v")).toEqual([]);
    expect(violations({ $id: id, type: "string" }, 1, "v")).toEqual(["v must be string"]);
  });

  it("is compiled once for the same content: 10,000 checks take less than a compilation each would", () => {
    const start = performance.now();
    for (let i = 0; i < 10_000; i += 1) violations({ ...SCHEMA }, { topic: "x" }, "v");
    expect(performance.now() - start).toBeLessThan(2000);
    // Further schemas push the first out; it is compiled again.
    for (let i = 0; i < 1100; i += 1) expect(violations({ const: i }, i, "v")).toEqual([]);
    expect(violations({ ...SCHEMA }, {}, "v")).toHaveLength(1);
  });
});
