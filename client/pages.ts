/** Most items that a page of the coordinator holds. */
export const PAGE_MAX = 1_000;

/** The pages of a list, each fetched when the one before it has been read. */
export async function* pages<P extends { readonly nextPageToken: string }>(
  fetch: (pageToken: string) => Promise<P>,
): AsyncGenerator<P, void> {
  for (let pageToken = ""; ;) {
    const page = await fetch(pageToken);
    yield page;
    if (page.nextPageToken === "") return;
    pageToken = page.nextPageToken;
  }
}
