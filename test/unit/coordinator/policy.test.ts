import type { DescService } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { POLICY } from "../../../coordinator/access/policy.ts";
import { BlueprintService } from "../../../gen/agentrunner/v1/blueprint_service_pb.ts";
import { FleetService } from "../../../gen/agentrunner/v1/fleet_service_pb.ts";
import { RunService } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import { RunnerService } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { SessionService } from "../../../gen/agentrunner/v1/session_service_pb.ts";
import { Health } from "../../../gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../../gen/grpc/reflection/v1alpha/reflection_pb.ts";

const OURS: readonly DescService[] = [RunnerService, RunService, SessionService, BlueprintService, FleetService];
const OTHERS: readonly DescService[] = [Health, ServerReflection, ServerReflectionAlpha];
const PAGES = ["/", "/health", "/ready", "/metrics", "/mcp"];

function pathsOf(services: readonly DescService[]): string[] {
  return services.flatMap(({ typeName, methods }) => methods.map(({ name }) => `/${typeName}/${name}`));
}

describe("the policy", () => {
  it("has a row for every method and page that is served, and none for what is not", () => {
    expect(Object.keys(POLICY).sort()).toEqual([...pathsOf([...OURS, ...OTHERS]), ...PAGES].sort());
  });

  it("opens no method of ours to everyone but Register", () => {
    const open = pathsOf(OURS).filter((path) => POLICY[path]?.type === "anyone");
    expect(open).toEqual(["/agentrunner.v1.RunnerService/Register"]);
  });

  it("lets runners call what runners call, and nothing else", () => {
    const runners = Object.keys(POLICY).filter((path) => POLICY[path]?.type === "runner");
    expect([...runners, "/agentrunner.v1.RunnerService/Register"].sort()).toEqual(pathsOf([RunnerService]).sort());
  });
});
