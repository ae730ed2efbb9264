import { createRegistry, toBinary } from "@bufbuild/protobuf";
import type { DescFile, DescService, Registry } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import type { ConnectRouter } from "@connectrpc/connect";
import { file_google_rpc_error_details } from "../../gen/google/rpc/error_details_pb.ts";
import { ServerReflection } from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import type { ServerReflectionRequest } from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import type { ServerReflectionRequest as ServerReflectionRequestAlpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.ts";

type Request = ServerReflectionRequest | ServerReflectionRequestAlpha;

/**
 * Mounts gRPC server reflection, v1 and v1alpha, for `services` and itself, so that grpcurl and `buf curl` work without a
 * .proto file. Both versions have the same messages under different names, so one generator serves both.
 */
export function mountReflection(router: ConnectRouter, services: readonly DescService[]): void {
  const serve = async function* <R extends Request>(requests: AsyncIterable<R>, { signal }: { signal: AbortSignal }) {
    const sent = new Set<string>();
    for await (const request of untilAborted(requests, signal)) {
      yield { validHost: request.host, originalRequest: request, messageResponse: respond(index, request, sent) };
    }
  };
  router.service(ServerReflection, { serverReflectionInfo: serve<ServerReflectionRequest> });
  router.service(ServerReflectionAlpha, { serverReflectionInfo: serve<ServerReflectionRequestAlpha> });
  const index = indexServices([...services, ServerReflection, ServerReflectionAlpha]);
}

interface Index {
  services: readonly DescService[];
  /** By path, with everything they import. */
  files: ReadonlyMap<string, DescFile>;
  registry: Registry;
}

function indexServices(services: readonly DescService[]): Index {
  const files = new Map<string, DescFile>();
  // No message refers to the details of an error; a client that prints one asks for its type.
  for (const file of withImports(file_google_rpc_error_details)) files.set(file.proto.name, file);
  for (const service of services) for (const file of withImports(service.file)) files.set(file.proto.name, file);
  return { services, files, registry: createRegistry(...files.values()) };
}

function respond(index: Index, { messageRequest }: Request, sent: Set<string>) {
  switch (messageRequest.case) {
    case "listServices":
      return {
        case: "listServicesResponse",
        value: { service: index.services.map(({ typeName }) => ({ name: typeName })) },
      } as const;
    case "fileByFilename":
      return filesResponse(index.files.get(messageRequest.value), `file ${messageRequest.value}`, sent);
    case "fileContainingSymbol":
      return filesResponse(fileOfSymbol(index.registry, messageRequest.value), `symbol ${messageRequest.value}`, sent);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = messageRequest.value;
      const extendee = index.registry.getMessage(containingType);
      const extension = extendee && index.registry.getExtensionFor(extendee, extensionNumber);
      return filesResponse(extension?.file, `extension ${extensionNumber} of ${containingType}`, sent);
    }
    case "allExtensionNumbersOfType": {
      const typeName = messageRequest.value;
      if (index.registry.getMessage(typeName) === undefined)
        return errorResponse(Code.NotFound, `no type ${typeName} here`);
      const numbers = [...index.registry].flatMap((type) =>
        type.kind === "extension" && type.extendee.typeName === typeName ? [type.number] : [],
      );
      return {
        case: "allExtensionNumbersResponse",
        value: { baseTypeName: typeName, extensionNumber: numbers },
      } as const;
    }
    case undefined:
      return errorResponse(Code.InvalidArgument, "the request asks for nothing this server knows");
    default:
      return messageRequest satisfies never;
  }
}

/** The file and those of its imports that this stream has not carried yet, as grpc-go does: one round trip per symbol. */
function filesResponse(file: DescFile | undefined, what: string, sent: Set<string>) {
  if (file === undefined) return errorResponse(Code.NotFound, `no ${what} here`);
  const fresh = withImports(file).filter(({ proto }) => proto.name === file.proto.name || !sent.has(proto.name));
  for (const { proto } of fresh) sent.add(proto.name);
  const fileDescriptorProto = fresh.map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  return { case: "fileDescriptorResponse", value: { fileDescriptorProto } } as const;
}

function errorResponse(errorCode: Code, errorMessage: string) {
  return { case: "errorResponse", value: { errorCode, errorMessage } } as const;
}

/** Types are in the registry by name; members (a method, a field, a oneof, an enum value) are found through their parent. */
function fileOfSymbol(registry: Registry, symbol: string): DescFile | undefined {
  const type = registry.get(symbol);
  if (type !== undefined) return type.file;
  const dot = symbol.lastIndexOf(".");
  const name = symbol.slice(dot + 1);
  const parent = registry.get(symbol.slice(0, Math.max(dot, 0)));
  const members = parent?.kind === "service" ? parent.methods : parent?.kind === "message" ? parent.members : [];
  if (members.some((member) => member.name === name)) return parent?.file;
  return enumValueFile(registry, symbol);
}

/** Enum values live beside their enum, not below it: `pkg.RUN_STATE_PENDING`. */
function enumValueFile(registry: Registry, symbol: string): DescFile | undefined {
  for (const type of registry) {
    if (type.kind !== "enum") continue;
    const scope = type.typeName.slice(0, type.typeName.length - type.name.length);
    if (type.values.some((value) => scope + value.name === symbol)) return type.file;
  }
  return undefined;
}

/** The file and all it imports, each before its own imports: the first is the one asked for, and reversed they can be built. */
function withImports(file: DescFile): DescFile[] {
  const seen = new Set<DescFile>();
  const importsFirst: DescFile[] = [];
  const visit = (visited: DescFile) => {
    if (seen.has(visited)) return;
    seen.add(visited);
    for (const dependency of visited.dependencies) visit(dependency);
    importsFirst.push(visited);
  };
  visit(file);
  return importsFirst.reverse();
}

/** `source`, but throws the signal's reason as soon as it is aborted: a client that holds its stream open must not hold up a stop. */
async function* untilAborted<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncIterable<T> {
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => undefined);
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    const iterator = source[Symbol.asyncIterator]();
    for (;;) {
      const next = await Promise.race([iterator.next(), aborted.promise]);
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
