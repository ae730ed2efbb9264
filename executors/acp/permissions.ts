/** Who may do what, when the agent asks. */
export interface PermissionPolicy {
  /** For tools that neither list names. */
  readonly default: "allow" | "deny";
  /** Names, kinds (`read`, `edit`, `execute`, …) or beginnings of names with `*` at the end. */
  readonly allow: readonly string[];
  /** Comes before `allow`. */
  readonly deny: readonly string[];
}

/** A call that the agent asks about: what the protocol tells of it. */
export interface AskedCall {
  /** What the call is named in the question, and was named when it was announced: agents use a tool's name or its title. */
  readonly names: readonly string[];
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

/** Who answers: a policy now; a person who is asked through the run has the same shape. */
export type PermissionDecider = (call: AskedCall, options: readonly AskedOption[]) => Promise<PermissionAnswer>;

/** Answers by the profile, at once. */
export function decideBy(policy: PermissionPolicy): PermissionDecider {
  return (call, options) => Promise.resolve(answerPermission(policy, call, options));
}

/** The answer is for this call alone where the agent lets one say so. */
export function answerPermission(
  policy: PermissionPolicy,
  call: AskedCall,
  options: readonly AskedOption[],
): PermissionAnswer {
  const { decision, because } = decisionOf(policy, call);
  const kinds = decision === "allow" ? ["allow_once", "allow_always"] : ["reject_once", "reject_always"];
  const option = kinds.map((kind) => options.find((one) => one.kind === kind)).find((one) => one !== undefined);
  return { decision, optionId: option?.optionId, because };
}

function decisionOf(policy: PermissionPolicy, call: AskedCall): Pick<PermissionAnswer, "decision" | "because"> {
  const denied = policy.deny.find((pattern) => matches(pattern, call));
  if (denied !== undefined) return { decision: "deny", because: `deny: ${denied}` };
  const allowed = policy.allow.find((pattern) => matches(pattern, call));
  if (allowed !== undefined) return { decision: "allow", because: `allow: ${allowed}` };
  return { decision: policy.default, because: `default: ${policy.default}` };
}

function matches(pattern: string, { names, kind }: AskedCall): boolean {
  if (pattern.endsWith("*")) return names.some((name) => name.startsWith(pattern.slice(0, -1)));
  return pattern === kind || names.includes(pattern);
}
