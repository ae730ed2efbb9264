import { describe, expect, it } from "vitest";
import { containerEnvironment } from "../../../../executors/lib/agent-config/environment.ts";
import {
  DEFAULT_AUTHORSHIP,
  GIT_AUTHORSHIPS,
  gitAuthorship,
  gitRoles,
} from "../../../../executors/lib/agent-config/git-identity.ts";
import { refusal } from "../../../support/agent-config.ts";

const HUMAN = { name: "Ada", email: "ada@example.org" };

function identity(options: Partial<Parameters<typeof containerEnvironment>[0]>): string[] {
  const env = containerEnvironment({ provider: "codex", unrestricted: false, ...options });
  return ["AUTHOR", "COMMITTER"].map((role) => `${env[`GIT_${role}_NAME`]} <${env[`GIT_${role}_EMAIL`]}>`);
}

describe("env identity", () => {
  it("from roster; committer defaults to author", () => {
    expect(identity({})).toEqual(["Codex <noreply@openai.com>", "Codex <noreply@openai.com>"]);
  });

  it("explicit overrides", () => {
    expect(identity({ author: { name: "X" }, committer: HUMAN })).toEqual([
      "X <noreply@openai.com>",
      "Ada <ada@example.org>",
    ]);
  });

  it("an overridden author is the committer too", () => {
    expect(identity({ author: HUMAN })).toEqual(["Ada <ada@example.org>", "Ada <ada@example.org>"]);
  });

  it("unknown provider fallback", () => {
    expect(identity({ provider: "other" })).toEqual(["AI Agent <ai@localhost>", "AI Agent <ai@localhost>"]);
  });

  it("authorship defaults/custom", () => {
    expect(identity({ human: HUMAN })).toEqual(["Codex <noreply@openai.com>", "Ada <ada@example.org>"]);
    expect(identity({ human: HUMAN, authorship: "human-agent" })).toEqual([
      "Ada <ada@example.org>",
      "Codex <noreply@openai.com>",
    ]);
    const env = containerEnvironment({ provider: "pi", unrestricted: false, human: HUMAN, authorship: "human" });
    expect(env).toMatchObject({ TEROK_GIT_AUTHORSHIP: "human", HUMAN_GIT_NAME: "Ada", GIT_AUTHOR_NAME: "Ada" });
  });

  it("one validated enum, with one default", () => {
    expect([gitAuthorship(""), gitAuthorship(null), DEFAULT_AUTHORSHIP]).toEqual(Array(3).fill("agent-human"));
    expect(refusal(() => gitAuthorship("agent_human")).message).toContain(GIT_AUTHORSHIPS.join(", "));
    expect(gitRoles("agent", HUMAN, HUMAN)).toEqual({ author: HUMAN, committer: HUMAN });
  });
});

it("env: unrestricted sets / restricted omits", () => {
  const free = containerEnvironment({ provider: "vibe", unrestricted: true });
  expect(free).toMatchObject({ TEROK_UNRESTRICTED: "1", COPILOT_ALLOW_ALL: "true" });
  const bound = containerEnvironment({ provider: "vibe", unrestricted: false });
  for (const name of ["TEROK_UNRESTRICTED", "COPILOT_ALLOW_ALL", "OPENCODE_PERMISSION"]) {
    expect(bound).not.toHaveProperty(name);
  }
  expect(() => Object.assign(bound, { X: "1" })).toThrow(TypeError);
});

it("env: every endpoint behind OpenCode", () => {
  expect(containerEnvironment({ provider: "claude", unrestricted: false })).toMatchObject({
    TEROK_OC_BLABLADOR_PREFERRED_MODEL: "alias-huge",
    TEROK_OC_KISSKI_CONFIG_DIR: ".kisski",
    TEROK_OC_OPENROUTER_BASE_URL: "https://openrouter.ai/api/v1",
    TEROK_OC_OPENROUTER_FALLBACK_MODEL: "anthropic/claude-3.5-sonnet",
    TEROK_OC_BLABLADOR_DISPLAY_NAME: "Helmholtz Blablador",
    TEROK_OC_KISSKI_ENV_VAR_PREFIX: "KISSKI",
  });
});
