/**
 * @file How long it takes to import 10,000 drafts with a picture each, from E-VQA's JSON and from CSV, with wrong rows among them. Clock and
 * processor time of this process, the longest time that nothing else was served, and peak memory.
 * `npm run bench -- import [rows, default 10000] [side of a picture in pixels, default 224]`
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import sharp from 'sharp';
import { importEdits } from '../../electron/library/importEdits.ts';
import { openLibrary } from '../../electron/library/library.ts';

const rows = Number(process.argv[3] ?? 10_000);
const side = Number(process.argv[4] ?? 224);
const folder = mkdtempSync(join(tmpdir(), 'emend-import-bench-'));
const pictures = join(folder, 'pictures');
mkdirSync(pictures);

// One noisy picture, with another mark for every row: as hard to decode as a photograph, and each a file of its own.
const pixels = Uint8Array.from({ length: 3 * side * side }, (_, i) => (i * 7 + (((i * i) >> 3) % 90)) % 256);
for (let i = 0; i < rows; i += 1) {
  pixels.set([i % 256, i >> 8, 0], 0);
  const picture = sharp(pixels, { raw: { width: side, height: side, channels: 3 } });
  writeFileSync(join(pictures, `${i}.jpg`), await picture.jpeg().toBuffer());
}
/** every hundredth row names a picture that is not there */
const name = (i: number) => (i % 100 === 99 ? `none-${i}.jpg` : `${i}.jpg`);
const all = Array.from({ length: rows }, (_, i) => i);
const evqa = all.map((i) => ({
  ...{ src: `what is number ${i}?`, alt: 'fox', image: name(i), rephrase: `which is number ${i}?` },
  ...{ loc: 'what is the capital of Italy?', loc_ans: 'Rome' },
}));
writeFileSync(join(folder, 'evqa.json'), JSON.stringify(evqa));
const csv = ['picture,prompt,target', ...all.map((i) => `${name(i)},what is number ${i}?,fox`)];
writeFileSync(join(folder, 'edits.csv'), csv.join('\n'));

/** Processor seconds of the processes this one started (the one that decodes pictures), where the system tells; else NaN. */
function ofChildren(): number {
  try {
    const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ');
    const ticks = children.filter(Boolean).map((id) => {
      const [, after] = readFileSync(`/proc/${id}/stat`, 'utf8').split(') ');
      const fields = after!.split(' ');
      return Number(fields[11]) + Number(fields[12]);
    });
    return ticks.reduce((sum, one) => sum + one, 0) / 100;
  } catch {
    return Number.NaN;
  }
}

const delay = monitorEventLoopDelay({ resolution: 5 });
for (const file of ['evqa.json', 'edits.csv']) {
  const library = openLibrary(join(folder, `${file}.emend`));
  delay.reset();
  delay.enable();
  const [began, used, before] = [performance.now(), process.cpuUsage(), ofChildren()];
  const found = await importEdits(library, join(folder, file), {
    ...{ images: pictures, tags: [], dryRun: false, signal: new AbortController().signal },
    onProgress: () => {},
  });
  const seconds = (performance.now() - began) / 1000;
  delay.disable();
  const { user, system } = process.cpuUsage(used);
  console.log(
    `  ${file.padEnd(10)} ${found.added} of ${found.rows} rows added, ${found.wrong} told as wrong, in ${seconds.toFixed(1)} s ` +
      `(processor: ${((user + system) / 1e6).toFixed(1)} s here, ${(ofChildren() - before).toFixed(1)} s decoding; longest pause ${(delay.max / 1e6).toFixed(0)} ms, ` +
      `${(process.resourceUsage().maxRSS / 1024).toFixed(0)} MB at most; ${cpus().length} cores, load ${loadavg()[0]!.toFixed(1)})`,
  );
  library.close();
}
rmSync(folder, { recursive: true, force: true });
