/** The scripted model server, for tests. It is part of the product, because `ao executors check` needs it. */
export { startModelStub } from "../../../conformance/model-stub/server.ts";
export type { ModelRequest, ModelStub } from "../../../conformance/model-stub/server.ts";
export { STUB_KEY } from "../../../conformance/model-stub/endpoints.ts";
