import type { JsonValue } from "@bufbuild/protobuf";
import type { CreateRunRequest } from "../../gen/agentrunner/v1/run_service_pb.ts";
import { Report_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { BlueprintDir } from "../blueprints/blueprint-dir.ts";
import { parametersToJudge } from "../core/blueprints/blueprint-run.ts";
import { SchemaUnanswered, unavailable } from "../schemas/schema-judge.ts";
import type { SchemaJudge } from "../schemas/schema-judge.ts";
import { Refusal } from "../store/store.ts";
import type { AgentLookup, ResultViolations, Store } from "../store/store.ts";

/*
 * What is held against JSON Schemas before the store is given a command: not inside a transaction, and not on the event loop.
 */

interface Judging {
  readonly store: Store;
  readonly judge: SchemaJudge;
}

/** The agent of a new run, with what its parameters are like; or why there is none. */
export async function judgedAgent(
  { store, judge }: Judging,
  blueprints: BlueprintDir,
  request: CreateRunRequest,
): Promise<AgentLookup> {
  const agentOfSession = await store.agentNameOf(request);
  const name = request.agentName || (agentOfSession ?? "");
  if (name === "") return undefined;
  let found = await blueprints.lookUp(name);
  if (found instanceof Refusal && found.code === "NOT_FOUND") {
    // A session goes on with the blueprint that it had.
    found = (await store.lastBlueprint(request, name)) ?? found;
  }
  if (found instanceof Refusal) return found;
  const asked = parametersToJudge(request.parameters, found, agentOfSession !== undefined);
  if (asked === undefined) return { blueprint: found, violations: undefined };
  try {
    const answer = await judge.judge(asked.schema, asked.value, "parameters");
    if ("violations" in answer) return { blueprint: found, violations: answer.violations };
    const message = `agent blueprint ${name}: parameters_schema cannot be used: ${answer.problem}`;
    return new Refusal("FAILED_PRECONDITION", message);
  } catch (error) {
    if (!(error instanceof SchemaUnanswered)) throw error;
    return unavailable(error) ?? new Refusal("INVALID_ARGUMENT", `agent blueprint ${name}: ${error.message}`);
  }
}

/**
 * What of the results in a batch does not fit the `output_schema` of their blueprints.
 * @throws Refusal UNAVAILABLE when too much waits: the batch is to be repeated as it is.
 */
export async function judgedResults({ store, judge }: Judging, reports: readonly Report[]): Promise<ResultViolations> {
  const completed = reports.filter(({ kind, result }) => kind === Report_Kind.COMPLETED && result?.data !== undefined);
  const violations = new Map<Report, readonly string[]>();
  if (completed.length === 0) return violations;
  const schemas = await store.outputSchemas(completed.map(({ runId }) => runId));
  const judgeOne = async (report: Report): Promise<void> => {
    const schema = schemas.get(report.runId);
    const data: JsonValue | undefined = report.result?.data;
    if (schema === undefined || data === undefined) return;
    try {
      const answer = await judge.judge(schema, data, "data");
      violations.set(report, "violations" in answer ? answer.violations : [`it cannot be used: ${answer.problem}`]);
    } catch (error) {
      if (!(error instanceof SchemaUnanswered)) throw error;
      const repeat = unavailable(error);
      if (repeat !== undefined) throw repeat;
      violations.set(report, [error.message]);
    }
  };
  await Promise.all(completed.map(judgeOne));
  return violations;
}
