/**
 * Variable that every executor of one runner process carries, with the runner's boot id, so that the processes of a dead
 * runner can be told from others: by the runner that comes after it, and by `ao doctor`.
 */
export const BOOT_VARIABLE = "AGENT_RUNNER_BOOT";
