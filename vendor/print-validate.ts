// Prints buf/validate/validate.proto from the descriptor inside @bufbuild/protovalidate: no npm package carries the
// .proto itself. Usage and what is left out: vendor/README.md. Covers what that one file uses (proto2, no nested
// types, no maps, no defaults, no services) and throws on anything else.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type DescEnum, type DescExtension, type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { Edition } from "@bufbuild/protobuf/wkt";
import { file_buf_validate_validate as file } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

type Range = { start: number; end: number };

const FIELD_MAX = 536_870_911;

function ranges(list: readonly Range[]): string {
  return list
    .map(({ start, end }) => (start === end ? `${start}` : `${start} to ${end === FIELD_MAX ? "max" : end}`))
    .join(", ");
}

/** Descriptors of messages end ranges exclusively, those of enums inclusively; the text form is always inclusive. */
function inclusive(list: readonly Range[]): Range[] {
  return list.map(({ start, end }) => ({ start, end: end - 1 }));
}

function reserved(list: readonly Range[], names: readonly string[]): string[] {
  return [
    ...(list.length > 0 ? [`reserved ${ranges(list)};`] : []),
    ...(names.length > 0 ? [`reserved ${names.map((name) => JSON.stringify(name)).join(", ")};`] : []),
  ];
}

function typeName(field: DescField | DescExtension): string {
  if (field.message !== undefined) return field.message.typeName.replace(/^buf\.validate\./, "");
  if (field.enum !== undefined) return field.enum.typeName.replace(/^buf\.validate\./, "");
  if (field.scalar !== undefined) return ScalarType[field.scalar].toLowerCase();
  throw new Error(`${String(field)}: this printer knows no maps`);
}

function printField(field: DescField | DescExtension): string {
  if (field.proto.defaultValue !== "") throw new Error(`${String(field)}: this printer knows no defaults`);
  const inOneof = field.kind === "field" && field.oneof !== undefined;
  const label = field.fieldKind === "list" ? "repeated " : inOneof ? "" : "optional ";
  return `${label}${typeName(field)} ${field.name} = ${field.number};`;
}

function printMessage(message: DescMessage): string {
  if (message.nestedMessages.length + message.nestedEnums.length + message.nestedExtensions.length > 0) {
    throw new Error(`${String(message)}: this printer knows no nested types`);
  }
  const members = message.members.map((member) =>
    member.kind === "oneof"
      ? `oneof ${member.name} {\n${member.fields.map(printField).join("\n")}\n}`
      : printField(member),
  );
  const { reservedRange, reservedName, extensionRange } = message.proto;
  const extensions = extensionRange.length > 0 ? [`extensions ${ranges(inclusive(extensionRange))};`] : [];
  return `message ${message.name} {\n${[...members, ...extensions, ...reserved(inclusive(reservedRange), reservedName)].join("\n")}\n}`;
}

function printEnum(desc: DescEnum): string {
  const values = desc.values.map((value) => `${value.name} = ${value.number};`);
  return `enum ${desc.name} {\n${[...values, ...reserved(desc.proto.reservedRange, desc.proto.reservedName)].join("\n")}\n}`;
}

if (file.edition !== Edition.EDITION_PROTO2) throw new Error("this printer writes proto2 only");
const source = fileURLToPath(import.meta.resolve("@bufbuild/protovalidate/gen/buf/validate/validate_pb.js"));
const text = readFileSync(source, "utf8");
const notice = text.slice(0, text.indexOf("\nimport "));
const options = file.proto.options;
process.stdout.write(
  [
    notice,
    "// Printed from the descriptor by vendor/print-validate.ts: comments and (predefined).cel options are left out.",
    'syntax = "proto2";',
    "package buf.validate;",
    ...file.dependencies.map((dependency) => `import "${dependency.name}.proto";`),
    `option go_package = "${options?.goPackage}";`,
    `option java_multiple_files = ${options?.javaMultipleFiles};`,
    `option java_outer_classname = "${options?.javaOuterClassname}";`,
    `option java_package = "${options?.javaPackage}";`,
    ...file.extensions.map((extension) => `extend ${extension.extendee.typeName} {\n${printField(extension)}\n}`),
    ...file.enums.map(printEnum),
    ...file.messages.map(printMessage),
  ].join("\n\n") + "\n",
);
