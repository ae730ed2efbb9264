import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { inRepository } from "../../support/paths.ts";

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}
interface Locked extends Manifest {
  readonly version?: string;
  readonly integrity?: string;
  readonly resolved?: string;
  /** True for a folder of this repository. */
  readonly link?: boolean;
}

const text = (path: string): string => readFileSync(inRepository(path), "utf8");
const manifest = JSON.parse(text("package.json")) as Manifest;
const { packages } = JSON.parse(text("package-lock.json")) as { packages: Record<string, Locked> };

const ours = { ...manifest.dependencies, ...manifest.devDependencies, ...manifest.optionalDependencies };

/** True when a package at that place would find the other one, as Node looks for it. */
function isLocked(name: string, from: string): boolean {
  for (let place = from; ; place = place.slice(0, Math.max(0, place.lastIndexOf("/node_modules/")))) {
    if (packages[`${place}${place === "" ? "" : "/"}node_modules/${name}`] !== undefined) return true;
    if (place === "") return false;
  }
}

it("locks every package that another one needs, also those of other platforms, without which `npm ci` refuses", () => {
  const missing = Object.entries(packages).flatMap(([place, { dependencies, optionalDependencies }]) =>
    Object.keys({ ...dependencies, ...optionalDependencies })
      .filter((name) => !isLocked(name, place))
      .map((name) => `${name}, for ${place}`),
  );
  expect(missing).toEqual([]);
});

it("names exact versions, and locks those", () => {
  for (const [name, version] of Object.entries(ours)) {
    expect(version, name).toMatch(/^\d+\.\d+\.\d+(-[\w.]+)?$/);
    expect(packages[`node_modules/${name}`]?.version, name).toBe(version);
  }
});

it("knows the content of every package, and no address of a registry", () => {
  const packed = Object.entries(packages).filter(([place, { link }]) => place !== "" && link !== true);
  expect(packed.filter(([, { integrity }]) => integrity === undefined)).toEqual([]);
  expect(packed.filter(([, { resolved }]) => resolved !== undefined)).toEqual([]);
});

it("says in docs/adr/0002-dependencies.md why each dependency is one", () => {
  const rows = text("docs/adr/0002-dependencies.md")
    .split("\n")
    .filter((line) => line.startsWith("|"));
  const named = rows.flatMap((row) =>
    Array.from((row.split("|")[1] ?? "").matchAll(/`([^`]+)`/g), ([, name = ""]) => name),
  );
  const hasRow = (name: string) =>
    named.some((row) => row === name || (row.endsWith("*") && name.startsWith(row.slice(0, -1))));
  expect(Object.keys(ours).filter((name) => !hasRow(name))).toEqual([]);
  const without = named.filter((row) => !row.endsWith("*") && ours[row] === undefined);
  expect(without, "rows of what is no dependency").toEqual([]);
});
