import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { AgentError } from "../lib/agent/agent-error.ts";

const PACKAGE = "@anthropic-ai/claude-agent-sdk";

/** What is used of the SDK. Its messages are read as JSON (transcript.ts), because they grow with each version. */
export interface ClaudeSdk {
  query(request: {
    prompt: AsyncIterable<object> | string;
    options: Readonly<Record<string, unknown>>;
  }): AsyncIterable<unknown>;
}

/** Where the SDK may be installed: beside this file, and in the agent's folder of the roster. */
export function sdkPlaces(installFolder: string): string[] {
  const here = dirname(fileURLToPath(import.meta.url));
  return [join(here, "node_modules", PACKAGE), join(installFolder, "node_modules", PACKAGE)];
}

/**
 * The SDK of the first place that has one, and its version.
 * @param install the command that installs it.
 * @throws AgentError AGENT_NOT_INSTALLED; AGENT_VERSION when it cannot be loaded.
 */
export async function loadSdk(
  places: readonly string[],
  install: string,
): Promise<{ sdk: ClaudeSdk; version: string }> {
  const place = places.find((one) => existsSync(join(one, "package.json")));
  if (place === undefined) {
    throw new AgentError("AGENT_NOT_INSTALLED", `Claude's agent SDK is not installed; install it: ${install}`);
  }
  const manifest: { version?: string; main?: string } = JSON.parse(readFileSync(join(place, "package.json"), "utf8"));
  const version = manifest.version ?? "unknown";
  try {
    const sdk = (await import(pathToFileURL(join(place, manifest.main ?? "sdk.mjs")).href)) as Partial<ClaudeSdk>;
    if (typeof sdk.query !== "function") throw new Error("it has no query()");
    return { sdk: sdk as ClaudeSdk, version };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new AgentError(
      "AGENT_VERSION",
      `${PACKAGE} ${version} in ${place} cannot be used: ${reason}; install it: ${install}`,
      {
        cause: error,
      },
    );
  }
}
