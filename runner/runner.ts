import { mkdirSync, statSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ExecutorEvent } from "../gen/agentrunner/v1/executor_pb.ts";
import { HeldLeaseSchema, HeldLease_Phase, LeaseVerdict_Kind } from "../gen/agentrunner/v1/runner_pb.ts";
import type { HeldLease, LeaseVerdict, StopDirective } from "../gen/agentrunner/v1/runner_pb.ts";
import { ReportSchema, ReportVerdict_Kind, Report_Kind } from "../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report, ReportVerdict, RunOffer } from "../gen/agentrunner/v1/runner_service_pb.ts";
