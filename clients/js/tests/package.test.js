/** What is published: one module without imports, small, with types that stand alone. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { it } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";

import { build, transform } from "esbuild";

const HERE = fileURLToPath(new URL("..", import.meta.url));
const BUILT = join(HERE, "dist", "index.js");
const MOST = 7000;

it("the built module imports nothing", async () => {
  const { metafile } = await build({ entryPoints: [BUILT], bundle: false, write: false, metafile: true, format: "esm" });
  assert.deepEqual(Object.values(metafile.outputs).flatMap(({ imports }) => imports), []);
  const { dependencies } = JSON.parse(await readFile(join(HERE, "package.json"), "utf8"));
  assert.equal(dependencies, undefined);
});

it(`it has at most ${MOST} bytes, minified and compressed`, async () => {
  const { code } = await transform(await readFile(BUILT, "utf8"), { minify: true, format: "esm" });
  assert.ok(gzipSync(code, { level: 9 }).length <= MOST, `${gzipSync(code, { level: 9 }).length} bytes`);
});

it("an application that imports only its errors gets only these", async () => {
  const stdin = { contents: 'import { ProblemError } from "@dure/client"; console.log(ProblemError);', resolveDir: HERE };
  const { outputFiles } = await build({ stdin, bundle: true, write: false, minify: true, format: "esm" });
  assert.ok((outputFiles[0]?.contents.length ?? MOST) < 1500, `${outputFiles[0]?.contents.length} bytes`);
});

const USE = `
import { Dure, FailedError, type FeedEvent } from "@dure/client";
const dure = new Dure({ url: "http://localhost:8000" });
const job = await dure.submit<number, string>("shop.add", { args: [1, 2], unique_until: "started" });
const sum: number = await job.result({ timeout: 1 });
for await (const { kind, data } of job.events()) {
  if (kind === "output") data.chunk.toUpperCase();
  else if (kind === "progress") data.current?.toFixed();
  else if (kind === "result") data.result?.toFixed();
}
for await (const event of dure.workflow("flow").events()) if (event.kind === "workflow") event.data.progress.done;
const connection = await dure.connect();
const other: FeedEvent["kind"] = "log";
// @ts-expect-error there is no such option
await connection.submit("shop.add", { color: 1 });
// @ts-expect-error there is no such kind
const wrong: FeedEvent["kind"] = "lag";
export { FailedError, other, sum, wrong };
`;

for (const [module, resolution] of [["esnext", "bundler"], ["nodenext", "nodenext"]]) {
  it(`its types stand alone, with moduleResolution ${resolution}`, async (context) => {
    const folder = await mkdtemp(join(HERE, "dist", "types-"));
    context.after(() => rm(folder, { recursive: true }));
    const compilerOptions = { strict: true, noEmit: true, target: "es2022", module, moduleResolution: resolution, types: [] };
    await writeFile(join(folder, "use.mts"), USE);
    await writeFile(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["use.mts"] }));
    const tsc = join(HERE, "node_modules", ".bin", "tsc");
    await promisify(execFile)(tsc, ["-p", folder]).catch(({ stdout }) => assert.fail(stdout));
  });
}
