/** Imported first by every program: started by another Node than the pinned one, it says so instead of failing later. */
const WANTED = 26;

if (Number(process.versions.node.split(".")[0]) < WANTED) {
  process.stderr.write(
    `error: this needs Node ${WANTED}, and runs on ${process.version}\nhint: run \`npm ci\`, and start it through bin/ or npm\n`,
  );
  process.exit(2);
}
