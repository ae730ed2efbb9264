import { RunStateSchema } from "../../gen/agentrunner/v1/run_pb.ts";
import type { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import { Report_KindSchema } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";

/** How a run ends. States of runs and kinds of reports have the same three names. */
export const FINAL_STATES = ["COMPLETED", "FAILED", "STOPPED"] as const;
export type FinalState = (typeof FINAL_STATES)[number];

const NAMES: ReadonlySet<string> = new Set(FINAL_STATES);

/** True for the name of a state in which a run has ended. */
export function isFinalName(name: string): name is FinalState {
  return NAMES.has(name);
}

/** States of a run that has not ended. */
export const OPEN_STATES: readonly RunState[] = RunStateSchema.values
  .filter(({ number, localName }) => number !== 0 && !isFinalName(localName))
  .map(({ number }) => number as RunState);

/** True when a run in this state has ended. */
export function isFinalState(state: RunState): boolean {
  return isFinalName(RunStateSchema.value[state]?.localName ?? "");
}

/** True for a report that says how an executor ended. */
export function isFinalKind(kind: Report_Kind): boolean {
  return isFinalName(Report_KindSchema.value[kind]?.localName ?? "");
}
