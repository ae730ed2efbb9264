import { create, toBinary } from "@bufbuild/protobuf";
import { ExecutorResultSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorResult } from "../../gen/agentrunner/v1/executor_pb.ts";
import { RESULT_PART_MAX_BYTES, cutText } from "./limits.ts";

/**
 * Bounds a result in place: data of more than `maxBytes` (as protobuf) are left out, a longer text is cut, and the text
 * says both. Returns true when something was changed. The runner applies it to what an executor prints, the coordinator
 * to what any runner reports.
 */
export function boundResult(result: ExecutorResult, maxBytes: number = RESULT_PART_MAX_BYTES): boolean {
  let note = "";
  if (result.data !== undefined) {
    const { length } = toBinary(ExecutorResultSchema, create(ExecutorResultSchema, { data: result.data }));
    if (length > maxBytes) {
      note = `\n[data of ${length} bytes left out: at most ${maxBytes} are kept]`;
      delete result.data;
    }
  }
  const text = cutText(result.text, maxBytes - note.length) + note;
  const changed = text !== result.text;
  result.text = text;
  return changed;
}
