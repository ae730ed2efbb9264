/** Who may do what, when the agent asks. */
export interface PermissionPolicy {
  /** For tools that neither list names. */
  readonly default: "allow" | "deny";
  /** Names, kinds (`read`, `edit`, `execute`, …) or beginnings of titles with `*` at the end. */
  readonly allow: readonly string[];
  /** Comes before `allow`. */
  readonly deny: readonly string[];
}

/** A call that the agent asks about: what the protocol tells of it. */
export interface AskedCall {
  readonly title: string;
  /** Of the protocol: read, edit, delete, move, search, execute, think, fetch, other. */
  readonly kind: string;
}

export interface AskedOption {
  readonly optionId: string;
  /** allow_once, allow_always, reject_once, reject_always. Ids and texts differ between agents, kinds do not. */
  readonly kind: string;
}

export interface PermissionAnswer {
  readonly decision: "allow" | "deny";
  /** Undefined when the agent offers no such option: the question is cancelled then, which is a no. */
  readonly optionId: string | undefined;
  /** Why, for the transcript. */
  readonly because: string;
}

/** Answers at once: nobody sits at the terminal. The answer is for this call alone where the agent lets one say so. */
export function answerPermission(
  policy: PermissionPolicy,
  call: AskedCall,
  options: readonly AskedOption[],
): PermissionAnswer {
  const denied = policy.deny.find((pattern) => matches(pattern, call));
  const allowed = policy.allow.find((pattern) => matches(pattern, call));
  const decision = denied !== undefined ? "deny" : allowed !== undefined ? "allow" : policy.default;
  const because =
    denied !== undefined
      ? `deny: ${denied}`
      : allowed !== undefined
        ? `allow: ${allowed}`
        : `default: ${policy.default}`;
  const kinds = decision === "allow" ? ["allow_once", "allow_always"] : ["reject_once", "reject_always"];
  const option = kinds.map((kind) => options.find((one) => one.kind === kind)).find((one) => one !== undefined);
  return { decision, optionId: option?.optionId, because };
}

function matches(pattern: string, { title, kind }: AskedCall): boolean {
  if (pattern.endsWith("*")) return title.startsWith(pattern.slice(0, -1));
  return pattern === kind || pattern === title;
}
