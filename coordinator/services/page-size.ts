const DEFAULT_PAGE_SIZE = 100;

/** Items that a page of a list may hold: as many as were asked for, or 100. The largest is said in the .proto files. */
export function pageSizeOf({ pageSize }: { readonly pageSize: number }): number {
  return pageSize || DEFAULT_PAGE_SIZE;
}
