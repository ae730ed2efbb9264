import { configError } from "./diagnostics.ts";

/** Who is author and who is committer of what an agent commits, author first. */
export const GIT_AUTHORSHIPS = ["agent-human", "human-agent", "agent", "human"] as const;

export type GitAuthorship = (typeof GIT_AUTHORSHIPS)[number];

/** The same for the script and for the environment of the container. */
export const DEFAULT_AUTHORSHIP: GitAuthorship = "agent-human";

export interface GitPerson {
  readonly name: string;
  readonly email: string;
}

/** A person who is not named. */
export const NOBODY: GitPerson = { name: "Nobody", email: "nobody@localhost" };

/** An agent of which nothing is known. */
export const SOME_AGENT: GitPerson = { name: "AI Agent", email: "ai@localhost" };

/** @throws AgentConfigError for a word that is no authorship, with those that there are. */
export function gitAuthorship(word: string | null | undefined): GitAuthorship {
  if (!word) return DEFAULT_AUTHORSHIP;
  const known = GIT_AUTHORSHIPS.find((authorship) => authorship === word);
  if (known !== undefined) return known;
  throw configError(
    "spec-invalid",
    `the git authorship is ${JSON.stringify(word)}: give one of ${GIT_AUTHORSHIPS.join(", ")}`,
  );
}

/** Author and committer of an authorship. */
export function gitRoles(
  authorship: GitAuthorship,
  agent: GitPerson,
  human: GitPerson,
): { readonly author: GitPerson; readonly committer: GitPerson } {
  return {
    author: authorship.startsWith("agent") ? agent : human,
    committer: authorship === "human-agent" || authorship === "agent" ? agent : human,
  };
}
