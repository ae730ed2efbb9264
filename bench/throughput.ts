export async function throughput(): Promise<never> { throw new Error("later"); }
