/**
 * @file How quick a library of 100,000 edits is, over the contract, as the page calls it. Beside it what a scan of all edits costs, how long
 * changes of many edits take and how long nothing else is served meanwhile, and what another policy and another model do to it. Processor
 * time is told beside the clock's: on a machine that others use it is what counts.
 * `npm run bench -- library [edits, default 100000] [file to keep the library in]`
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout } from 'node:timers/promises';
import sharp from 'sharp';
import { createApplication } from '../../electron/api/application.ts';
import type { CallInput, EditFilter, EditSort } from '../../electron/api/contract.ts';
import type { EngineClient } from '../../electron/api/engineClient.ts';
import { EmendError } from '../../electron/errors.ts';
import { writeDraft } from '../../electron/library/edits.ts';
import { keepState, stateFingerprint } from '../../electron/library/freshness.ts';
import { openLibrary } from '../../electron/library/library.ts';
import { countEdits, findEdits } from '../../electron/library/lists.ts';
import { examinePicture, storePicture } from '../../electron/library/pictures.ts';
import { rememberModel } from '../../electron/library/recentModels.ts';
import { editRow } from '../../electron/library/rows.ts';
import { setTags } from '../../electron/library/tags.ts';

const edits = Number(process.argv[3] ?? 100_000);
const folder = mkdtempSync(join(tmpdir(), 'emend-bench-'));
const path = process.argv[4] ?? join(folder, 'large.emend');

/** Numbers below `below`, the same every time. */
let state = 7;
const draw = (below: number): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
};
const words =
  'what which animal fruit vehicle is the on left right of picture colour how many red green blue small fox lime pear tram'.split(
    ' ',
  );
const some = (count: number) => Array.from({ length: count }, () => words[draw(words.length)]).join(' ');

const jpeg = (seed: number, side: number): Promise<Buffer> => {
  const pixels = Uint8Array.from({ length: side * side * 3 }, (_, i) => ((i * (seed + 3)) >> 4) % 256);
  return sharp(pixels, { raw: { width: side, height: side, channels: 3 } })
    .jpeg()
    .toBuffer();
};

/**
 * Fills a library: drafts through the path every draft takes; checks, stages and dates in SQL, of which the triggers make status,
 * counts and indices as ever.
 */
async function fill(): Promise<void> {
  const library = openLibrary(path);
  const { database } = library;
  database.pragma('synchronous = OFF');
  const pictures: string[] = [];
  for (let i = 0; i < 200; i += 1) {
    pictures.push(storePicture(library, await examinePicture(await jpeg(i, 160))).id);
  }
  const check = database.prepare(
    `INSERT INTO checks (edit, finished, seconds, verdict, fingerprint, state, groups, stale_because, finding)
       VALUES (?, ?, 1, ?, ?, ?, '[]', ?, ?)`,
  );
  const found = ['fails', 'under-generalises', 'leaks', 'entangled'];
  const date = database.prepare('UPDATE edits SET created = ?, updated = ? WHERE id = ?');
  const commit = database.prepare(
    `UPDATE edits SET stage = 'committed', committed = ?, override_reason = 'x' WHERE id = ?`,
  );
  const retire = database.prepare(`UPDATE edits SET stage = 'retired' WHERE id = ?`);
  let fingerprint: string | undefined;
  const actors = { model: 'a'.repeat(64), adapter: 'b'.repeat(64) };
  library.actors = actors;
  rememberModel(library, { path: folder, name: 'drawn', adapterPath: null, ...actors });
  for (let begin = 0; begin < edits; begin += 1000) {
    database.transaction(() => {
      for (let i = begin; i < Math.min(begin + 1000, edits); i += 1) {
        const id = writeDraft(library, {
          picture: pictures[draw(pictures.length)]!,
          prompt: `${some(7)} ${i}?`,
          target: some(1 + draw(2)),
          before: some(1),
          note: draw(4) ? '' : some(12),
          reach: draw(5) ? 'picture' : 'thing',
        });
        const day = new Date(Date.UTC(2025, 0, 1) + draw(500 * 86_400_000)).toISOString();
        date.run(day, day, id);
        const checked = (verdict: string, finding: string | undefined) => {
          // what checks have in common is what is read of it
          fingerprint ??= stateFingerprint(library, editRow(library, id));
          const stale = draw(3) ? '[]' : '["edit"]';
          check.run(id, day, verdict, fingerprint, keepState(library, fingerprint), stale, finding);
        };
        if (draw(4) && draw(10) < 7) checked('passes', 'holds');
        else if (draw(2)) checked('fails', found[draw(4)]);
        if (draw(10) < 3) commit.run(day, id);
        if (draw(20) === 0) retire.run(id);
        if (draw(5) === 0) setTags(library, id, [['night', 'spring', 'to do'][draw(3)]!]);
      }
    })();
  }
  // The rest was written in its place.
  database.exec('DELETE FROM unreviewed');
  library.close();
}

/** Processor seconds of this process; work elsewhere on the machine does not count. */
const processor = (since?: NodeJS.CpuUsage): number => {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1e6;
};

/** Milliseconds by the clock, and of the processor. */
interface Took {
  readonly clock: number;
  readonly processor: number;
}
async function measure(work: () => unknown): Promise<Took> {
  const [start, used] = [performance.now(), process.cpuUsage()];
  await work();
  return { clock: performance.now() - start, processor: processor(used) * 1000 };
}
const median = (times: readonly number[]): number => times.toSorted((a, b) => a - b)[times.length >> 1]!;
const seconds = ({ clock, processor: used }: Took): string =>
  `${(clock / 1000).toFixed(1)} s, ${(used / 1000).toFixed(1)} s of the processor`;

if (!existsSync(path)) {
  console.log(`${edits.toLocaleString('en')} edits written in ${seconds(await measure(fill))}`);
}

/** Nothing here asks a model. */
const noEngine: EngineClient = {
  call: () => Promise.reject(new EmendError('engine', 'There is no engine here.')),
  state: { state: 'failed', message: '', provider: null, refusals: [], memoryBytes: null },
  onState: () => () => undefined,
  onRestart: () => () => undefined,
};
const open = () =>
  createApplication({
    ...{ libraryPath: path, resources: folder, engine: noEngine, version: '0', startModel: 'none' as const },
  });
let application = open();

const sorts: EditSort[] = (
  ['id', 'updated', 'created', 'committed', 'prompt', 'target', 'status'] as const
).flatMap((by) => [true, false].map((descending) => ({ by, descending })));
const filters: Record<string, EditFilter> = {
  'every edit': {},
  'status draft': { status: ['draft'] },
  'failed and stale': { status: ['failed', 'stale'] },
  'retired, passing': { status: ['retired'], verdict: ['passes'] },
  'of another model': { model: 'zzzz' },
  'of this model': { model: 'aaaa' },
  'leaking or entangled': { finding: ['leaks', 'entangled'] },
  'under-generalising things': { finding: ['under-generalises'], reach: 'thing' },
  'finding nothing has': { finding: ['holds'], verdict: ['fails'] },
  'a tag': { tags: ['night'] },
  'two tags': { tags: ['night', 'spring'] },
  'one week': { updated: { from: '2025-03-01', to: '2025-03-08' } },
  'committed in one week': { committed: { from: '2025-03-01', to: '2025-03-08' } },
  'created in a time before all': { created: { to: '2024-03-01' } },
  'half the time': { created: { from: '2025-06-01' } },
  'status, tag and text': { status: ['committed'], tags: ['spring'], text: 'fox' },
};
const searches = ['f', 'fox', 'what is', 'fox lime pear', '99999', '#4711', 'nothing has this'];

type Find = CallInput<'edits.find'>;
const find = (input: Find) => application.call('edits.find', { thumbnails: true, limit: 50, ...input });
/** the list as the first version made it: every edit read, then filtered */
const reader = openLibrary(path);
const scan = () => {
  const everything = { filter: {}, sort: { by: 'id', descending: true }, offset: 0, limit: edits } as const;
  return findEdits(reader, everything, { influence: false }).rows.filter(({ status }) => status === 'draft');
};

const rounds = 5;
const scans: Took[] = [];
interface Measured {
  readonly name: string;
  readonly limit: number;
  readonly works: Array<() => Promise<unknown>>;
}
const measured: Measured[] = [
  { name: 'app.status', limit: 5, works: [() => application.call('app.status', {})] },
  ...Object.entries(filters).map(([name, filter]) => ({
    ...{ name: `first page, ${name}, any order`, limit: 50 },
    works: sorts.map((sort) => () => find({ filter, sort })),
  })),
  ...searches.map((text) => ({
    ...{ name: `search “${text}”`, limit: 50 },
    works: [
      () => find({ filter: { text } }),
      () => find({ filter: { text }, sort: { by: 'updated', descending: true } }),
    ],
  })),
  {
    name: 'page in the middle, any order',
    limit: 50,
    works: sorts.map((sort) => () => find({ sort, offset: edits >> 1 })),
  },
  {
    name: 'opening an edit',
    limit: 20,
    works: Array.from({ length: 20 }, () => () => application.call('edits.show', { id: 1 + draw(edits) })),
  },
  {
    name: 'neighbours, any order',
    limit: 50,
    works: sorts.map(
      (sort) => () =>
        application.call('edits.neighbours', { id: 1 + draw(edits), filter: filters['status draft']!, sort }),
    ),
  },
];
const times = new Map<Measured, Took[]>(measured.map((one) => [one, []]));
for (let round = 0; round < rounds; round += 1) {
  for (const one of measured) for (const work of one.works) times.get(one)!.push(await measure(work));
  scans.push(await measure(scan));
}
const scanned = median(scans.map(({ processor: used }) => used));
console.log(`reading all edits and filtering them: ${scanned.toFixed(0)} ms of the processor`);
for (const [{ name, limit, works }, all] of times) {
  // of the slowest kind of call under a name: the median of its rounds
  const worst = (of: keyof Took) =>
    Math.max(
      ...works.map((_, at) =>
        median(all.filter((_time, place) => place % works.length === at).map((one) => one[of])),
      ),
    );
  const [clock, used] = [worst('clock'), worst('processor')];
  const over = used > limit ? `  OVER ${limit} ms` : '';
  console.log(
    `${name.padEnd(46)} ${used.toFixed(2).padStart(7)} ms of the processor, ${clock.toFixed(2)} ms  1/${(scanned / used).toFixed(0)} of that${over}`,
  );
}

console.log('the first call after the library was opened:');
for (const { name, limit, works } of measured) {
  const colds: Took[] = [];
  for (const work of works.slice(0, 3)) {
    await application.close();
    application = open();
    // what is done in the background at the start
    await setTimeout(50);
    colds.push(await measure(work));
  }
  const worst = Math.max(...colds.map(({ processor: used }) => used));
  const clock = Math.max(...colds.map((one) => one.clock));
  console.log(
    `${name.padEnd(46)} ${worst.toFixed(2).padStart(7)} ms of the processor, ${clock.toFixed(2)} ms${worst > limit ? `  OVER ${limit} ms` : ''}`,
  );
}

const delay = monitorEventLoopDelay({ resolution: 5 });
async function long(name: string, work: () => unknown): Promise<void> {
  delay.enable();
  await setTimeout(20);
  delay.reset();
  const took = await measure(work);
  // A pause is noticed when it is over.
  await setTimeout(20);
  delay.disable();
  console.log(`${name}: ${seconds(took)}, longest pause ${(delay.max / 1e6).toFixed(0)} ms`);
}

const { policy, theme } = await application.call('settings.get', {});
const set = (changes: CallInput<'settings.set'>) => () => application.call('settings.set', changes);
const other = { required: { ...policy.required, committed: 1.5 - policy.required.committed } };
const states = async () => {
  const { edits: counts } = await application.call('app.status', {});
  return `${counts.checked} checked, ${counts.stale} stale`;
};
await long('choosing another theme', set({ theme: theme === 'dark' ? 'light' : 'dark' }));
console.log(`before: ${await states()}`);
await long('choosing another policy, which makes every check stale', set({ policy: other }));
console.log(`after: ${await states()}`);
await long('the first page of what is stale', () => find({ filter: { status: ['stale'] } }));
await long('the first page by status', () => find({ sort: { by: 'status', descending: true } }));
await long('choosing the old one again', set({ policy }));
const actors = reader.actors;
reader.actors = { ...actors, model: 'c'.repeat(64) };
await long('status and first page under another model', () => {
  countEdits(reader);
  findEdits(
    reader,
    { filter: {}, sort: { by: 'status', descending: false }, offset: 0, limit: 50 },
    { influence: false },
  );
});
const night = { select: { filter: { tags: ['night'] } } };
const total = (await find({ filter: night.select.filter })).total.toLocaleString('en');
await long(`retiring ${total} edits`, () => application.call('edits.retireMany', night));
await long('taking that back', () => application.call('history.undo', {}));

reader.close();
await application.close();
rmSync(folder, { recursive: true, force: true });
