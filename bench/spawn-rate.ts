export async function spawnRate(): Promise<never> { throw new Error("later"); }
