import { toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import type { Value } from "@bufbuild/protobuf/wkt";
import type { ExecutorEvent } from "../../gen/agentrunner/v1/executor_pb.ts";
import { ExecutorOutput_Stream } from "../../gen/agentrunner/v1/executor_pb.ts";
import { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { RunTransition, SessionEvent } from "../../gen/agentrunner/v1/session_pb.ts";
import type { Paint } from "./format.ts";
import { bytes, clean, clock, shorten } from "./format.ts";
import { resultText, stateCell, why } from "./runs.ts";

/** How an event is shown. */
export type EventText =
  /** Text as the executor printed it, with its own line ends. */
  | { readonly type: "output"; readonly stream: "stdout" | "stderr"; readonly text: string }
  /** A line of the conversation; a line that says what is missing; a line about the run. */
  | { readonly type: "said" | "gap" | "note"; readonly text: string };

/** The text of an event; undefined for a kind from the future. */
export function eventText(event: SessionEvent, paint: Paint): EventText | undefined {
  const time = paint("dim", clock(event.time));
  switch (event.event.case) {
    case "transition":
      return { type: "note", text: `${time} ${transitionText(event.event.value, event.attempt, paint)}` };
    case "executor": {
      const shown = executorText(event.event.value, paint);
      return shown?.type === "note" ? { type: "note", text: `${time} ${shown.text}` } : shown;
    }
    default:
      return undefined;
  }
}

function transitionText(transition: RunTransition, attempt: number, paint: Paint): string {
  const { state, runnerId, failure, message } = transition;
  const cell = stateCell(state);
  const name = typeof cell === "string" ? cell : paint(cell[0], cell[1]);
  const details: string[] = [];
  if (state === RunState.CLAIMED && runnerId !== "") details.push(`by ${runnerId}`);
  if (state === RunState.CLAIMED && attempt > 1) details.push(`(attempt ${attempt})`);
  if (state === RunState.PENDING && attempt > 0) details.push("again");
  const reason = clean(why(failure, message));
  return [name, ...details].join(" ") + (reason === "" ? "" : `: ${reason}`);
}

function executorText({ event }: ExecutorEvent, paint: Paint): EventText | undefined {
  const note = (name: string, text: string): EventText => ({ type: "note", text: `${paint("dim", name)} ${text}` });
  switch (event.case) {
    case "output": {
      const { stream, text } = event.value;
      return { type: "output", stream: stream === ExecutorOutput_Stream.STDERR ? "stderr" : "stdout", text };
    }
    case "message":
      return { type: "said", text: `${paint("bold", `${clean(event.value.role)}:`)} ${event.value.text.trimEnd()}` };
    case "dropped": {
      const { events, bytes: size, reason } = event.value;
      const lost = [events > 0n && `${events} events`, size > 0n && bytes(Number(size))].filter(Boolean).join(" and ");
      return { type: "gap", text: paint("red", `[… ${lost} dropped: ${clean(reason)} …]`) };
    }
    case "tool": {
      const { name, input, output, error } = event.value;
      if (error !== "") return note("tool", `${clean(name)} failed: ${shorten(error, 200)}`);
      if (output !== undefined) return note("tool", `${clean(name)} → ${valueText(output)}`);
      return note("tool", `${clean(name)} ${input === undefined ? "" : valueText(input)}`.trimEnd());
    }
    case "status":
      return note("status", shorten(event.value.text, 200));
    case "usage": {
      const { inputTokens, outputTokens, costUsd, model } = event.value;
      const cost = costUsd === 0 ? "" : `, ${costUsd.toFixed(4)} USD`;
      return note(
        "usage",
        `${inputTokens} tokens in, ${outputTokens} out${cost}${model === "" ? "" : `, ${clean(model)}`}`,
      );
    }
    case "session":
      return note("session", clean(event.value.executorSessionId));
    case "result":
      return note("result", shorten(resultText(event.value), 200));
    case undefined:
      return note("unknown event", "of a newer runner; a newer ao may know it");
    default:
      return undefined;
  }
}

/** stderr of an executor stands beside its stdout, told apart by colour only; line ends stay outside of it. */
export function dimmed(text: string, paint: Paint): string {
  return text.replaceAll(/[^\n]+/g, (line) => paint("dim", line));
}

function valueText(value: Value): string {
  return shorten(JSON.stringify(toJson(ValueSchema, value)), 200);
}
