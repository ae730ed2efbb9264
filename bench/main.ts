import { cpus, loadavg } from "node:os";
import { statfsSync } from "node:fs";
import { parseArgs } from "node:util";
import { EXIT } from "../lib/exit-codes.ts";
import { callbackLatency } from "./callback.ts";
import { Workshop } from "./children.ts";
import { formatMeasured } from "./figures.ts";
import type { Measured } from "./figures.ts";
import { idleStreams } from "./idle-streams.ts";
import { offerLatency } from "./offer-latency.ts";
import { fsyncMs } from "./raw.ts";
import { spawnRate } from "./spawn-rate.ts";
import { throughput } from "./throughput.ts";

const USAGE = `Usage: npm run bench -- [--quick] [--row N]... [--json] [--cpu-prof DIR]

  --quick         small versions, under a minute; the figures are rougher
  --row N         only this row: 1 latency, 2 no-op runs, 3 processes, 4 idle streams, 5 callbacks
  --json          figures and facts as JSON
  --cpu-prof DIR  leave a processor profile of every coordinator and runner process in DIR
`;

const ROWS: readonly ((workshop: Workshop, quick: boolean) => Promise<Measured>)[] = [
  offerLatency,
  throughput,
  spawnRate,
  idleStreams,
  callbackLatency,
];

const TMPFS = 0x01021994;

process.exit(await main());

async function main(): Promise<number> {
  const options = readOptions();
  if (options === undefined) {
    process.stderr.write(USAGE);
    return EXIT.usage;
  }
  const { quick, json, rows, cpuProfileDir } = options;
  const workshop = new Workshop(cpuProfileDir);
  const machine = facts(workshop.dir);
  if (!json) process.stdout.write(`${machine.text}\n\n`);
  const measured: Measured[] = [];
  for (const row of rows) {
    process.stderr.write(`row ${row} …\n`);
    const one = await ROWS[row - 1]?.(workshop, quick);
    if (one !== undefined) measured.push(one);
  }
  process.stdout.write(json ? `${JSON.stringify({ machine, quick, measured }, null, 2)}\n` : formatMeasured(measured));
  return EXIT.ok;
}

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        quick: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        row: { type: "string", multiple: true, default: ROWS.map((_, i) => String(i + 1)) },
        "cpu-prof": { type: "string" },
      },
    });
    const rows = values.row.map(Number);
    if (!rows.every((row) => ROWS[row - 1] !== undefined)) return undefined;
    return { quick: values.quick, json: values.json, rows, cpuProfileDir: values["cpu-prof"] };
  } catch {
    // An unknown option, or one without its value: the usage says what there is.
    return undefined;
  }
}

function facts(dir: string) {
  const processors = cpus();
  const sync = fsyncMs(dir);
  const inMemory = statfsSync(dir).type === TMPFS;
  const cpu = `${processors.length} × ${processors[0]?.model.trim() ?? "unknown"}`;
  const disk = inMemory ? "tmpfs: nothing is durable, and commits look faster than they are" : "disk";
  const load = loadavg()[0] ?? 0;
  const text =
    `${cpu}, load ${load.toFixed(1)} before the start, node ${process.version}, ${process.platform}; ` +
    `${disk}, fdatasync of 4 KiB ${sync.toFixed(3)} ms`;
  return { text, cpu, load, node: process.version, platform: process.platform, inMemory, fsyncMs: sync };
}
