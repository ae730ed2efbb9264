import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Services } from "../../client/connect.ts";
import { startTestCoordinator, tempDir } from "./coordinator.ts";
import type { TestCoordinator } from "./coordinator.ts";

/** A coordinator, its directory of blueprints and a client for them. */
export interface AgentHouse {
  readonly c: TestCoordinator;
  /** The directory. */
  readonly dir: string;
  readonly blueprints: Services["blueprints"];
  /** Writes files of a blueprint, by hand; what is not a text is written as JSON. */
  write(name: string, files: Readonly<Record<string, unknown>>): void;
}

export async function startHouse(settings: Parameters<typeof startTestCoordinator>[0] = {}): Promise<AgentHouse> {
  const dir = join(tempDir(), "agents");
  const c = await startTestCoordinator({ agentsDir: dir, ...settings });
  return {
    c,
    dir,
    get blueprints() {
      return c.blueprints;
    },
    write(name, files) {
      mkdirSync(join(dir, name), { recursive: true });
      for (const [file, content] of Object.entries(files)) {
        writeFileSync(join(dir, name, file), typeof content === "string" ? content : JSON.stringify(content));
      }
    },
  };
}

/** `NotFound: text` of a call that is refused. */
export async function refusal(call: Promise<unknown>): Promise<string> {
  try {
    await call;
  } catch (error) {
    if (error instanceof ConnectError) return `${Code[error.code]}: ${error.rawMessage}`;
    throw error;
  }
  throw new Error("the call was not refused");
}
