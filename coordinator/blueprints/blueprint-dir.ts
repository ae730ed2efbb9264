import { randomBytes } from "node:crypto";
import { lstat, mkdir, readdir, rename, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { toBinary } from "@bufbuild/protobuf";
import { AgentBlueprintSchema } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import type { AgentBlueprint } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import type { Log } from "../../lib/log.ts";
import { FILE_MAX_BYTES, isCode, isForeign, readFiles, writeFiles } from "./blueprint-files.ts";
import {
  BlueprintError,
  FIELDS,
  isBlueprintName,
  NO_FILES,
  parseBlueprint,
  schemasOf,
  withFields,
} from "../core/blueprints/blueprint.ts";
import type { BlueprintFiles, Field } from "../core/blueprints/blueprint.ts";
import { SchemaUnanswered, unavailable } from "../schemas/schema-judge.ts";
import type { SchemaJudge } from "../schemas/schema-judge.ts";
import { nearNames } from "../../lib/near-names.ts";
import { Refusal } from "../store/store.ts";

/** A page of a list ends here, so that it fits a message. */
const PAGE_MAX_BYTES = 2 * 1024 * 1024;
/** Characters of an error that are shown. */
const ERROR_MAX = 1000;
/** Directories with longer names are not looked at: their names would not fit a page token. */
const NAME_MAX_BYTES = 180;
/** Warnings that are remembered, so that each is logged once; beyond, they are logged again. */
const MAX_REMEMBERED = 1000;

export interface BlueprintQuery {
  /** Only blueprints that have all of them. */
  readonly tags: readonly string[];
  readonly includeDisabled: boolean;
  readonly pageSize: number;
  readonly pageToken: string;
}

export interface BlueprintPage {
  readonly blueprints: AgentBlueprint[];
  readonly broken: { readonly name: string; readonly error: string }[];
  /** Empty on the last page. */
  readonly next: string;
}

/**
 * The agent blueprints: a directory with a directory for each. Files are read whenever somebody asks, so that an edit counts
 * at once. A change made here is seen whole by readers here; on disk each file is replaced in one step.
 */
export class BlueprintDir {
  readonly #path: string;
  readonly #log: Log;
  readonly #judge: SchemaJudge;
  readonly #warned = new Set<string>();
  /** Settles when no change is being written. Never rejects. */
  #writing: Promise<unknown> = Promise.resolve();

  /** The directory need not exist: it then holds none. */
  constructor(path: string, log: Log, judge: SchemaJudge) {
    this.#path = resolve(path);
    this.#log = log;
    this.#judge = judge;
  }

  /** @throws Refusal NOT_FOUND, with names that are near; FAILED_PRECONDITION when it is broken. */
  async get(name: string): Promise<AgentBlueprint> {
    await this.#writing;
    await this.#mustExist(name);
    return this.#usable(name);
  }

  /** The blueprint for a new run, or why no run can be made with it. */
  async lookUp(name: string): Promise<AgentBlueprint | Refusal> {
    try {
      const blueprint = await this.get(name);
      if (blueprint.enabled) return blueprint;
      const message = `agent blueprint ${name} is disabled; \`ao blueprints enable ${name}\` lets it run`;
      return new Refusal("FAILED_PRECONDITION", message);
    } catch (error) {
      if (error instanceof Refusal) return error;
      throw error;
    }
  }

  async list({ tags, includeDisabled, pageSize, pageToken }: BlueprintQuery): Promise<BlueprintPage> {
    const after = nameOfToken(pageToken);
    await this.#writing;
    const names = (await this.#names()).filter((name) => after === undefined || name > after);
    const page: BlueprintPage = { blueprints: [], broken: [], next: "" };
    let bytes = 0;
    let last: string | undefined;
    for (const name of names) {
      const found = await this.#read(name);
      if (found === undefined) continue;
      const wanted =
        "error" in found || ((includeDisabled || found.enabled) && tags.every((tag) => found.tags.includes(tag)));
      if (!wanted) continue;
      const size = "error" in found ? found.error.length : toBinary(AgentBlueprintSchema, found).length;
      const count = page.blueprints.length + page.broken.length;
      if (last !== undefined && (count >= pageSize || bytes + size > PAGE_MAX_BYTES)) {
        return { ...page, next: tokenOf(last) };
      }
      if ("error" in found) page.broken.push({ name, error: found.error });
      else page.blueprints.push(found);
      bytes += size;
      last = name;
    }
    return page;
  }

  /** Adds a blueprint, which is enabled whatever it says. @throws Refusal ALREADY_EXISTS, INVALID_ARGUMENT. */
  create(blueprint: AgentBlueprint): Promise<AgentBlueprint> {
    return this.#alone(async () => {
      const { name } = blueprint;
      const files = { ...withFields(NO_FILES, blueprint, FIELDS), disabled: false };
      const made = await this.#accepted(name, files);
      const foreign = await this.#isForeign(name);
      const what = foreign
        ? `a folder ${name} is there, of something else;`
        : `agent blueprint ${name} exists; update it, or`;
      const exists = new Refusal("ALREADY_EXISTS", `${what} choose another name`);
      if (!foreign && (await this.#exists(name))) throw exists;
      const unfinished = this.#hidden("new");
      await mkdir(unfinished, { recursive: true });
      try {
        await writeFiles(unfinished, NO_FILES, files);
        await rename(unfinished, this.#dir(name));
      } catch (error) {
        await rm(unfinished, { recursive: true, force: true });
        // Another program was faster.
        throw isCode(error, "ENOTEMPTY", "EEXIST") ? exists : error;
      }
      return made;
    });
  }

  /**
   * Puts the fields into a blueprint. No path means all fields; then what the blueprint had before is gone.
   * @throws Refusal NOT_FOUND, INVALID_ARGUMENT, FAILED_PRECONDITION when a broken one is to keep some of its fields.
   */
  update(blueprint: AgentBlueprint, paths: readonly string[]): Promise<AgentBlueprint> {
    return this.#alone(async () => {
      const { name } = blueprint;
      await this.#mustExist(name);
      const fields = paths.length === 0 ? FIELDS : paths.map(fieldOf);
      const whole = FIELDS.every((field) => fields.includes(field));
      if (!whole) await this.#usable(name);
      const before = await readFiles(this.#path, name).catch((error: unknown) => {
        throw error instanceof BlueprintError ? broken(name, error.message) : error;
      });
      const after = withFields(whole ? NO_FILES : before, blueprint, fields);
      const made = await this.#accepted(name, after);
      await writeFiles(this.#dir(name), before, after);
      return made;
    });
  }

  /** @throws Refusal NOT_FOUND. */
  remove(name: string): Promise<void> {
    return this.#alone(async () => {
      await this.#mustExist(name);
      const gone = this.#hidden("old");
      await rename(this.#dir(name), gone);
      await rm(gone, { recursive: true, force: true });
    });
  }

  /** One change at a time. */
  #alone<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#writing.then(change).catch((error: unknown) => {
      if (!(error instanceof Error && "code" in error) || error instanceof Refusal) throw error;
      throw new Refusal("RESOURCE_EXHAUSTED", `the agent blueprints cannot be written: ${error.message}`);
    });
    this.#writing = done.catch(() => undefined);
    return done;
  }

  #dir(name: string): string {
    return join(this.#path, name);
  }

  /** A name that is no blueprint's. */
  #hidden(what: "new" | "old"): string {
    return this.#dir(`.${what}-${randomBytes(6).toString("hex")}`);
  }

  /** Every directory that is meant as a blueprint, well named or not, by name. */
  async #names(): Promise<string[]> {
    const entries = await readdir(this.#path, { withFileTypes: true }).catch((error: unknown) => {
      if (isCode(error, "ENOENT")) return [];
      throw new Refusal("FAILED_PRECONDITION", `the agent blueprints cannot be read: ${String(error)}`);
    });
    return entries
      .filter((entry) => entry.isDirectory() || entry.isSymbolicLink())
      .map(({ name }) => name)
      .filter((name) => !name.startsWith(".") && Buffer.byteLength(name) <= NAME_MAX_BYTES)
      .sort((a, b) => (a < b ? -1 : 1));
  }

  async #exists(name: string): Promise<boolean> {
    // No other name is part of a path unless the directory has shown it.
    if (!isBlueprintName(name)) return (await this.#names()).includes(name);
    const status = await lstat(this.#dir(name)).catch(() => undefined);
    return status !== undefined && (status.isDirectory() || status.isSymbolicLink());
  }

  async #isForeign(name: string): Promise<boolean> {
    if (!(await this.#exists(name))) return false;
    return readFiles(this.#path, name).then(isForeign, () => false);
  }

  async #mustExist(name: string): Promise<void> {
    if ((await this.#exists(name)) && !(await this.#isForeign(name))) return;
    const names = await this.#names();
    const near = nearNames(name, names);
    const hint =
      near.length > 0
        ? `did you mean ${near.join(" or ")}?`
        : names.length === 0
          ? `there are none in ${this.#path}`
          : "`ao blueprints` lists those that there are";
    throw new Refusal("NOT_FOUND", `no agent blueprint ${name.slice(0, 100)}; ${hint}`, "BLUEPRINT_NOT_FOUND");
  }

  async #usable(name: string): Promise<AgentBlueprint> {
    const found = (await this.#read(name)) ?? { error: "it was removed meanwhile" };
    if ("error" in found) throw broken(name, found.error);
    return found;
  }

  /** Undefined for a folder of something else. */
  async #read(name: string): Promise<AgentBlueprint | { error: string } | undefined> {
    try {
      const files = await readFiles(this.#path, name);
      if (isForeign(files)) return undefined;
      const { blueprint, warnings } = parseBlueprint(name, files);
      for (const warning of warnings) this.#warnOnce(name, warning);
      await this.#checkSchemas(blueprint);
      return blueprint;
    } catch (error) {
      if (error instanceof BlueprintError) return { error: error.message.slice(0, ERROR_MAX) };
      // Whatever the disk reports for one blueprint, the others can be read.
      if (error instanceof Error && "code" in error) return { error: `it cannot be read: ${error.message}` };
      throw error;
    }
  }

  /** The blueprint that the files make. @throws Refusal INVALID_ARGUMENT. */
  async #accepted(name: string, files: BlueprintFiles): Promise<AgentBlueprint> {
    const tooLarge = [files.agent, files.systemPrompt, files.mcp].some(
      (text) => Buffer.byteLength(text ?? "") > FILE_MAX_BYTES,
    );
    if (tooLarge) throw new Refusal("INVALID_ARGUMENT", `a file of a blueprint holds at most ${FILE_MAX_BYTES} bytes`);
    try {
      const { blueprint } = parseBlueprint(name, files);
      await this.#checkSchemas(blueprint);
      return blueprint;
    } catch (error) {
      if (error instanceof BlueprintError) throw new Refusal("INVALID_ARGUMENT", error.message);
      throw error;
    }
  }

  /** @throws BlueprintError; Refusal UNAVAILABLE when it cannot be found out now. */
  async #checkSchemas(blueprint: AgentBlueprint): Promise<void> {
    for (const { at, schema } of schemasOf(blueprint)) {
      const problem = await this.#judge.problem(schema, at).catch((error: unknown) => {
        if (!(error instanceof SchemaUnanswered)) throw error;
        throw unavailable(error) ?? new BlueprintError(error.message);
      });
      if (problem !== undefined) throw new BlueprintError(`${at}: not a JSON Schema that can be used: ${problem}`);
    }
  }

  #warnOnce(name: string, warning: string): void {
    const key = `${name}\n${warning}`;
    if (this.#warned.has(key)) return;
    if (this.#warned.size >= MAX_REMEMBERED) this.#warned.clear();
    this.#warned.add(key);
    this.#log.warn({ agent: name }, warning);
  }
}

function broken(name: string, error: string): Refusal {
  return new Refusal("FAILED_PRECONDITION", `agent blueprint ${name} is broken: ${error}`);
}

function fieldOf(path: string): Field {
  const field = FIELDS.find((field) => field === path);
  if (field !== undefined) return field;
  throw new Refusal("INVALID_ARGUMENT", `update_mask: ${path} cannot be changed; ${FIELDS.join(", ")} can`);
}

const TOKEN = "after.";

function tokenOf(name: string): string {
  return TOKEN + Buffer.from(name).toString("base64url");
}

function nameOfToken(token: string): string | undefined {
  if (token === "") return undefined;
  if (token.startsWith(TOKEN)) return Buffer.from(token.slice(TOKEN.length), "base64url").toString();
  throw new Refusal("INVALID_ARGUMENT", `not a page token: ${token}`);
}
