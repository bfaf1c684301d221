// Bundles the page into aggregator/web/assets, or with --check says whether what is there is what this would make.
import { readFileSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const out = process.env.WEB_OUT || join(here, '../aggregator/web/assets');
const { version } = JSON.parse(readFileSync(join(here, 'node_modules/uplot/package.json')));

const result = await build({
  absWorkingDir: here,
  entryPoints: { app: 'src/main.js' },
  outdir: 'out',
  bundle: true,
  minify: true,
  charset: 'utf8',
  format: 'iife',
  target: ['chrome123', 'firefox120', 'safari17.5'], // the first with light-dark()
  banner: { js: `/* uPlot ${version}, MIT, and httpctl, Apache-2.0: see licences.txt */`, css: `/* uPlot ${version}, MIT, and httpctl, Apache-2.0: see licences.txt */` },
  legalComments: 'none',
  write: false,
});
const files = Object.fromEntries(result.outputFiles.map((f) => [f.path.split(/[\\/]/).pop(), Buffer.from(f.contents)]));
for (const name of ['index.html', 'icon.svg']) files[name] = readFileSync(join(here, 'src', name));
files['licences.txt'] = Buffer.from(`This page is part of httpctl, under the Apache License 2.0.

It contains uPlot ${version} (https://github.com/leeoniya/uPlot):

${readFileSync(join(here, 'node_modules/uplot/LICENSE'), 'utf8')}`);

if (process.argv.includes('--check')) {
  const there = readdirSync(out);
  const differ = Object.keys(files).filter((name) => !there.includes(name) || !readFileSync(join(out, name)).equals(files[name]));
  const extra = there.filter((name) => !(name in files));
  if (differ.length || extra.length) {
    console.error(`not what web/ makes: ${[...differ, ...extra].join(', ')}`);
    process.exit(1);
  }
} else {
  mkdirSync(out, { recursive: true });
  for (const name of readdirSync(out)) rmSync(join(out, name));
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(out, name), bytes);
  console.log(Object.entries(files).map(([name, bytes]) => `${name} ${bytes.length}`).join(', '));
}
