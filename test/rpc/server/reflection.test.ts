import { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import type { FileDescriptorProto } from "@bufbuild/protobuf/wkt";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterEach, describe, expect, it } from "vitest";
import { RunService } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import { ServerReflection } from "../../../gen/grpc/reflection/v1/reflection_pb.ts";
import type { ServerReflectionRequestSchema } from "../../../gen/grpc/reflection/v1/reflection_pb.ts";
import { startTestServer, stopTestServers } from "../../support/test-server.ts";

type Question = NonNullable<MessageInitShape<typeof ServerReflectionRequestSchema>["messageRequest"]>;

afterEach(stopTestServers);

/** Asks all questions on one stream and returns the answers. */
async function reflect(questions: Question[]) {
  const { url } = await startTestServer({ routes: (router) => router.service(RunService, {}) });
  const client = createClient(ServerReflection, createGrpcTransport({ baseUrl: url }));
  const requests = (async function* () {
    for (const messageRequest of questions) yield { host: "h", messageRequest };
  })();
  const answers = [];
  for await (const { messageResponse, originalRequest } of client.serverReflectionInfo(requests)) {
    expect(originalRequest?.host).toBe("h");
    answers.push(messageResponse);
  }
  return answers;
}

/** The descriptors in answers, and the names of their files per answer. */
function filesIn(answers: Awaited<ReturnType<typeof reflect>>): { all: FileDescriptorProto[]; names: string[][] } {
  const files = answers.map(({ case: kind, value }) =>
    kind === "fileDescriptorResponse"
      ? value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes))
      : [],
  );
  return { all: files.flat(), names: files.map((list) => list.map(({ name }) => name)) };
}

describe("reflection", () => {
  it("gives a service with everything it imports, so that the answer alone can be built", async () => {
    const { all } = filesIn(await reflect([{ case: "fileContainingSymbol", value: "agentrunner.v1.RunService" }]));
    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: all.reverse() }));
    expect(registry.getService("agentrunner.v1.RunService")?.methods.length).toBe(RunService.methods.length);
    expect(registry.getMessage("google.protobuf.Duration")).toBeDefined();
    expect(registry.getExtension("buf.validate.field")?.number).toBe(1159);
  });

  it("finds methods, messages, fields, enum values and extensions by name, number and file", async () => {
    const answers = await reflect([
      { case: "fileContainingSymbol", value: "agentrunner.v1.RunService.GetRun" },
      { case: "fileContainingSymbol", value: "agentrunner.v1.GetRunRequest" },
      { case: "fileContainingSymbol", value: "agentrunner.v1.GetRunRequest.run_id" },
      { case: "fileContainingSymbol", value: "grpc.health.v1.HealthCheckResponse.SERVING" },
      { case: "fileContainingSymbol", value: "buf.validate.field" },
      {
        case: "fileContainingExtension",
        value: { containingType: "google.protobuf.FieldOptions", extensionNumber: 1159 },
      },
      { case: "fileByFilename", value: "google/protobuf/duration.proto" },
      { case: "fileContainingSymbol", value: "google.rpc.ErrorInfo" },
    ]);
    expect(filesIn(answers).names.map(([first]) => first)).toEqual([
      "agentrunner/v1/run_service.proto",
      "agentrunner/v1/run_service.proto",
      "agentrunner/v1/run_service.proto",
      "grpc/health/v1/health.proto",
      "buf/validate/validate.proto",
      "buf/validate/validate.proto",
      "google/protobuf/duration.proto",
      "google/rpc/error_details.proto",
    ]);
  });

  it("sends an import once per stream, but always the file that was asked for", async () => {
    const symbol: Question = { case: "fileContainingSymbol", value: "agentrunner.v1.RunService" };
    const { names } = filesIn(await reflect([symbol, symbol]));
    expect(names[0]!.length).toBeGreaterThan(5);
    expect(names[1]).toEqual(["agentrunner/v1/run_service.proto"]);
  });

  it("lists the extension numbers of a type", async () => {
    const [answer] = await reflect([{ case: "allExtensionNumbersOfType", value: "google.protobuf.FieldOptions" }]);
    expect(answer).toMatchObject({ case: "allExtensionNumbersResponse", value: { extensionNumber: [1159, 1160] } });
  });

  it("answers what it does not know with NOT_FOUND and stays open", async () => {
    const answers = await reflect([
      { case: "fileContainingSymbol", value: "agentrunner.v1.FleetService" },
      { case: "fileContainingSymbol", value: "agentrunner.v1.GetRunRequest.nope" },
      { case: "fileContainingSymbol", value: "" },
      { case: "fileByFilename", value: "nope.proto" },
      {
        case: "fileContainingExtension",
        value: { containingType: "google.protobuf.FieldOptions", extensionNumber: 7 },
      },
      { case: "fileContainingExtension", value: { containingType: "nope.Type", extensionNumber: 7 } },
      { case: "allExtensionNumbersOfType", value: "nope.Type" },
    ]);
    const codes = answers.map((answer) => (answer.case === "errorResponse" ? answer.value.errorCode : answer.case));
    expect(codes).toEqual([5, 5, 5, 5, 5, 5, 5]);
  });

  it("answers an empty question with INVALID_ARGUMENT", async () => {
    const [answer] = await reflect([{ case: undefined }]);
    expect(answer).toMatchObject({ case: "errorResponse", value: { errorCode: 3 } });
  });
});
