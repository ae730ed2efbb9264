/** A key that no provider knows. */
export const STUB_KEY = "sk-stub-0123456789abcdef";

/**
 * The variables by which programs find the server instead of a provider. Each dialect has its own, and a list of others can be
 * added: `urls` get the address, `keys` a key.
 */
export function stubEnvironment(
  url: string,
  more: { readonly urls?: readonly string[]; readonly keys?: readonly string[] } = {},
): Record<string, string> {
  const keys = ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", ...(more.keys ?? [])];
  const known = {
    ANTHROPIC_BASE_URL: url,
    OPENAI_BASE_URL: `${url}/v1`,
    GOOGLE_GEMINI_BASE_URL: url,
    NO_PROXY: "127.0.0.1,localhost",
    no_proxy: "127.0.0.1,localhost",
  };
  const urls = (more.urls ?? []).filter((name) => !Object.hasOwn(known, name));
  return {
    ...known,
    ...Object.fromEntries(urls.map((name) => [name, `${url}/v1`])),
    ...Object.fromEntries(keys.map((name) => [name, STUB_KEY])),
  };
}
