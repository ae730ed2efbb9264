import { Ajv, MissingRefError } from "ajv";
import type { ErrorObject, Options, ValidateFunction } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** The schema cannot be used. The message says why. */
export class SchemaError extends Error {
  override readonly name = "SchemaError";
}

/** Compiled schemas that are kept, the latest used. */
const MAX_COMPILED = 1000;
/** Violations that are listed. */
const MAX_LISTED = 20;

const OPTIONS: Options = {
  allErrors: true,
  // Unknown keywords and formats are annotations, as the specification says; files of other programs carry them.
  strict: false,
  validateFormats: false,
  // Two schemas may have the same $id.
  addUsedSchema: false,
  logger: false,
};

interface Draft {
  /** One that has compiled other schemas and knows none of them by name. */
  readonly shared: () => Ajv;
  /** One of its own for a schema that refers to itself by a name, or as a whole. Takes some 20 ms. */
  readonly own: () => Ajv;
}

/** The drafts that are read, by their `$schema` without scheme and fragment. */
const DRAFTS: Readonly<Record<string, Draft>> = {
  "json-schema.org/draft-07/schema": draft((options) => new Ajv(options)),
  "json-schema.org/draft/2020-12/schema": draft((options) => new Ajv2020(options)),
};

function draft(make: (options: Options) => Ajv): Draft {
  return { shared: renewed(() => make(OPTIONS)), own: () => make({ ...OPTIONS, addUsedSchema: true }) };
}

/** By content; a Map keeps the order in which they were used. */
const compiled = new Map<string, ValidateFunction>();

/**
 * What of `value` does not fit `schema`, one text for each violation, at most 20 and a count; none when it fits. Texts begin
 * with `what` and the JSON Pointer of the place: `parameters/files/0 must be string`.
 *
 * @throws SchemaError for a schema that cannot be used.
 */
export function violations(schema: JsonObject, value: JsonValue, what: string): string[] {
  const validate = validator(schema);
  if (validate(value)) return [];
  const errors = validate.errors ?? [];
  const listed = errors.slice(0, MAX_LISTED).map((error) => `${what}${error.instancePath} ${explained(error)}`);
  return errors.length > MAX_LISTED ? [...listed, `and ${errors.length - MAX_LISTED} more`] : listed;
}

/** Why the schema cannot be used; undefined when it can. */
export function schemaProblem(schema: JsonObject): string | undefined {
  try {
    validator(schema);
    return undefined;
  } catch (error) {
    if (error instanceof SchemaError) return error.message;
    throw error;
  }
}

function validator(schema: JsonObject): ValidateFunction {
  const key = JSON.stringify(schema);
  const known = compiled.get(key);
  const validate = known ?? compile(schema);
  compiled.delete(key);
  compiled.set(key, validate);
  const [oldest] = compiled.keys();
  if (compiled.size > MAX_COMPILED && oldest !== undefined) compiled.delete(oldest);
  return validate;
}

function compile(schema: JsonObject): ValidateFunction {
  if (schema["$async"] === true) throw new SchemaError("$async schemas are not supported");
  const { shared, own } = draftOf(schema);
  try {
    try {
      return shared().compile(schema);
    } catch (error) {
      if (error instanceof MissingRefError) return own().compile(schema);
      throw error;
    }
  } catch (error) {
    throw new SchemaError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

/** A schema that names no draft is of 2020-12, unless only draft-07 has what it says: a list under `items`. */
function draftOf(schema: JsonObject): Draft {
  const named = schema["$schema"];
  const [draft07, draft2020] = Object.values(DRAFTS) as [Draft, Draft];
  if (named === undefined) return draft2020.shared().validateSchema(schema) === true ? draft2020 : draft07;
  const uri = typeof named === "string" ? named.replace(/^https?:\/\//, "").replace(/#$/, "") : "";
  const draft = Object.hasOwn(DRAFTS, uri) ? DRAFTS[uri] : undefined;
  if (draft !== undefined) return draft;
  const known = Object.keys(DRAFTS).map((draft) => `https://${draft}`);
  throw new SchemaError(`$schema ${JSON.stringify(named)} is not known; known: ${known.join(", ")}`);
}

function explained({ keyword, message = "does not fit", params }: ErrorObject): string {
  switch (keyword) {
    case "enum":
      return `${message}: ${(params["allowedValues"] as JsonValue[]).map((value) => JSON.stringify(value)).join(", ")}`;
    case "const":
      return `${message}: ${JSON.stringify(params["allowedValue"])}`;
    case "additionalProperties":
      return `${message}: ${JSON.stringify(params["additionalProperty"])}`;
    default:
      return message;
  }
}

/** Makes an Ajv when it is needed, and a new one now and then, as each keeps whatever it has compiled. */
function renewed(make: () => Ajv): () => Ajv {
  let ajv: Ajv | undefined;
  let uses = 0;
  return () => {
    uses += 1;
    if (ajv === undefined || uses > 2 * MAX_COMPILED) [ajv, uses] = [make(), 1];
    return ajv;
  };
}
