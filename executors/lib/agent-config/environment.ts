import { SOME_AGENT, gitAuthorship, gitRoles } from "./git-identity.ts";
import type { GitPerson } from "./git-identity.ts";
import { AGENT_PROVIDERS, collectAutoApproveEnv } from "./providers.ts";

export interface EnvironmentOptions {
  /** Whose name the commits bear. An unknown one is "AI Agent". */
  readonly provider: string;
  /** One of `GIT_AUTHORSHIPS`; default `agent-human`. */
  readonly authorship?: string | null;
  /** Without one, the agent stands for the person too. */
  readonly human?: GitPerson | null;
  /** These win over the authorship. */
  readonly author?: Partial<GitPerson>;
  readonly committer?: Partial<GitPerson>;
  /** The agents never ask before they act. */
  readonly unrestricted: boolean;
}

/**
 * Variables of the container of a task: who commits, what OpenCode's endpoints are, and whether the agents ask.
 * @throws AgentConfigError for an unknown authorship.
 */
export function containerEnvironment(options: EnvironmentOptions): Readonly<Record<string, string>> {
  const authorship = gitAuthorship(options.authorship);
  const provider = AGENT_PROVIDERS.get(options.provider);
  const agent = provider === undefined ? SOME_AGENT : { name: provider.gitAuthorName, email: provider.gitAuthorEmail };
  const roles = gitRoles(authorship, agent, options.human ?? agent);
  const author = { ...roles.author, ...options.author };
  const committer = { ...(options.human ? roles.committer : author), ...options.committer };
  return Object.freeze({
    TEROK_GIT_AUTHORSHIP: authorship,
    ...(options.human ? { HUMAN_GIT_NAME: options.human.name, HUMAN_GIT_EMAIL: options.human.email } : {}),
    GIT_AUTHOR_NAME: author.name,
    GIT_AUTHOR_EMAIL: author.email,
    GIT_COMMITTER_NAME: committer.name,
    GIT_COMMITTER_EMAIL: committer.email,
    ...endpoints(),
    ...(options.unrestricted ? { TEROK_UNRESTRICTED: "1", ...collectAutoApproveEnv() } : {}),
  });
}

/** `TEROK_OC_<NAME>_…` for every endpoint behind OpenCode. */
function endpoints(): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const { name, opencodeConfig } of AGENT_PROVIDERS.values()) {
    if (opencodeConfig === null) continue;
    const prefix = `TEROK_OC_${name.toUpperCase()}`;
    variables[`${prefix}_BASE_URL`] = opencodeConfig.baseUrl;
    variables[`${prefix}_PREFERRED_MODEL`] = opencodeConfig.preferredModel;
    variables[`${prefix}_FALLBACK_MODEL`] = opencodeConfig.fallbackModel;
    variables[`${prefix}_DISPLAY_NAME`] = opencodeConfig.displayName;
    variables[`${prefix}_ENV_VAR_PREFIX`] = opencodeConfig.envVarPrefix;
    variables[`${prefix}_CONFIG_DIR`] = opencodeConfig.configDir;
  }
  return variables;
}
