import { configError } from "./diagnostics.ts";

/** Where things are for the agent: in its container, or on the host when there is none. */
export interface ContainerPaths {
  /** Where the agent-config folder of the task appears. */
  readonly config: string;
  /** The checkout on which the agent works. */
  readonly workspace: string;
  readonly home: string;
  /** What the image brings: the plugin of the sessions, an own git identity helper. */
  readonly share: string;
}

/** The paths of the format. */
export const CONTAINER_PATHS: ContainerPaths = {
  config: "/home/dev/.terok",
  workspace: "/workspace",
  home: "/home/dev",
  share: "/usr/local/share/terok",
};

/** The paths of the format, with some of them replaced. @throws AgentConfigError for one that is not absolute. */
export function containerPaths(change: Partial<ContainerPaths> = {}): ContainerPaths {
  const paths = { ...CONTAINER_PATHS, ...change };
  for (const [name, path] of Object.entries(paths)) {
    // No control characters: the paths are written into a script, into JSON and into one-line messages.
    if (!/^\/[^\p{Cc}]*$/u.test(path)) {
      throw configError("spec-invalid", `paths.${name} is ${JSON.stringify(path)}: give an absolute path`);
    }
  }
  return paths;
}
