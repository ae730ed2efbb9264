import type { JsonObject } from "@bufbuild/protobuf";
import { AgentError } from "../lib/agent/agent-error.ts";
import { checkedConfig, object, oneOf, text, texts, variables } from "../lib/agent/config-checks.ts";
import type { Check } from "../lib/agent/config-checks.ts";
import type { PermissionPolicy } from "./permissions.ts";

/** `executor_config` of a profile of type acp. */
export interface AcpConfig {
  /** Name of the agent in the roster. */
  readonly agent: string;
  /** Program that replaces the one that is found. */
  readonly program: string | undefined;
  readonly model: string | undefined;
  /** Mode of the agent, in its own words; it replaces that of the roster. */
  readonly permissionMode: string | undefined;
  readonly permissions: PermissionPolicy;
  /** Variables of the agent, over those of the runner. */
  readonly env: Readonly<Record<string, string>>;
  /** Directories besides the project's that it may work in. */
  readonly addDirs: readonly string[];
}

const KEYS = {
  agent: text,
  program: text,
  model: text,
  permission_mode: text,
  permissions: object,
  env: variables,
  add_dirs: texts,
} satisfies Record<string, Check<unknown>>;

const PERMISSION_KEYS = {
  default: oneOf("allow", "deny"),
  allow: texts,
  deny: texts,
} satisfies Record<string, Check<unknown>>;

/** @throws AgentError BAD_CONFIG that names the key, its value and what belongs there. */
export function acpConfig(config: JsonObject): AcpConfig {
  const known = checkedConfig(config, KEYS);
  if (known.agent === undefined) {
    throw new AgentError(
      "BAD_CONFIG",
      `"agent" of config is missing; name an agent of the roster: \`ao executors ls\``,
    );
  }
  return {
    agent: known.agent,
    program: known.program,
    model: known.model,
    permissionMode: known.permission_mode,
    permissions: policyOf(known.permissions ?? {}),
    env: known.env ?? {},
    addDirs: known.add_dirs ?? [],
  };
}

/** Without a word of the profile the agent may do what it wants: nobody is there to be asked. */
function policyOf(permissions: JsonObject): PermissionPolicy {
  const at = Object.fromEntries(Object.entries(permissions).map(([key, value]) => [`permissions.${key}`, value]));
  const known = checkedConfig(at, prefixed(PERMISSION_KEYS));
  return {
    default: known["permissions.default"] ?? "allow",
    allow: known["permissions.allow"] ?? [],
    deny: known["permissions.deny"] ?? [],
  };
}

type Prefixed<K> = { [Name in keyof K & string as `permissions.${Name}`]: K[Name] };

/** The keys as messages name them. */
function prefixed<K extends Record<string, Check<unknown>>>(keys: K): Prefixed<K> {
  return Object.fromEntries(Object.entries(keys).map(([name, check]) => [`permissions.${name}`, check])) as Prefixed<K>;
}
