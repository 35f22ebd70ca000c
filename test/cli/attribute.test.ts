/** @file `emend attribute`, as people run it: real child processes on a tiny checkpoint. */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { fixture } from '../support/fixtures.ts';
import { writeMappedAdapter } from '../support/mappedAdapter.ts';

const cli = join(import.meta.dirname, '../../electron/cli.ts');
const model = ['--model', fixture('checkpoints/llava_tiny'), '--provider', 'cpu'];
const one = ['--image', fixture('images/a.png'), '--prompt', 'What is the animal?'];
// Each test waits for several processes that open a model.
vi.setConfig({ testTimeout: 300_000 });
let base: string;
const at = (name: string) => join(base, name);

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-attribute-'));
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal is it?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'b.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'b.png', m_loc_q: 'What is the fruit?', m_loc_a: 'an apple' },
  };
  await writeFile(at('edits.json'), JSON.stringify([record, { ...record, image: 'b.png' }, record]));
});
afterAll(() => rm(base, { recursive: true, force: true }));

interface Finished {
  readonly code: number | null;
  readonly out: string;
  readonly said: string;
}
function emend(...args: string[]): Promise<Finished> {
  const child = spawn(process.execPath, [cli, 'attribute', ...args], {
    env: { ...process.env, XDG_DATA_HOME: base },
  });
  let [out, said] = ['', ''];
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (said += data));
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, out, said })));
}
async function succeed(...args: string[]): Promise<string> {
  const { code, out, said } = await emend(...args);
  expect(said).toBe('');
  expect(code).toBe(0);
  return out;
}

/** A PNG of so many charts under one another, each with bars of the first colour, all on white. */
async function expectCharts(path: string, charts: number): Promise<void> {
  const image = sharp(await readFile(path));
  const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });
  expect((await image.metadata()).format).toBe('png');
  expect(info).toMatchObject({ width: 1680, height: 680 * charts, channels: 3 });
  expect([...data.subarray(0, 3)]).toEqual([255, 255, 255]);
  const half = data.length / charts;
  for (let chart = 0; chart < charts; chart++) {
    const part = data.subarray(chart * half, (chart + 1) * half);
    let blue = 0;
    for (let at = 0; at < part.length; at += 3) {
      if (part[at] === 0x3b && part[at + 1] === 0x6f && part[at + 2] === 0xd4) blue++;
    }
    // The key alone has 400.
    expect(blue).toBeGreaterThan(600);
  }
}

it('prints layers as a table and for programs, over a set with its control, and writes CSV', async () => {
  const set = ['--data', at('edits.json'), '--images', join(fixture('images/a.png'), '..'), '--limit', '2'];
  const files = ['--csv', at('modules.csv'), '--png', at('modules.png')];
  const table = await succeed('modules', ...model, ...set, ...files);
  expect(table).toMatch(/layer +attention +mlp +wrong_attention +wrong_mlp\n +0 /);
  expect(table).toContain('mean of 2 inputs');
  const csv = (await readFile(at('modules.csv'), 'utf8')).trim().split('\n');
  expect(csv[0]).toBe('layer,attention,mlp,wrong_attention,wrong_mlp');
  expect(csv).toHaveLength(7);
  // the model's own key tokens and the wrong ones
  await expectCharts(at('modules.png'), 2);
  const told = JSON.parse(await succeed('modules', ...model, ...one, '--token', 'two', '--json'));
  expect(told).toMatchObject({ count: 1, control: null, edited: null });
  expect(told.contribution.attention).toHaveLength(6);
});

it('writes overlays of the layers asked for, with the hottest cell in full colour', async () => {
  const told = JSON.parse(
    await succeed(
      'visual',
      ...model,
      ...one,
      '--layer',
      '4,2',
      '--draws',
      '1',
      '--png',
      at('maps'),
      '--json',
    ),
  );
  expect(told.layers.map(({ layer }: { layer: number }) => layer)).toEqual([2, 4]);
  expect((await readdir(at('maps'))).sort()).toEqual(['layer-02.png', 'layer-04.png']);
  const painted = sharp(await readFile(at('maps/layer-02.png')));
  const { data, info } = await painted.raw().toBuffer({ resolveWithObject: true });
  const plain = await sharp(await readFile(fixture('images/a.png')))
    .resize(info.width, info.height, { kernel: 'cubic' })
    .removeAlpha()
    .raw()
    .toBuffer();
  const values: number[] = told.layers[0].before;
  const changed = (cell: number) => {
    const { left, top, width, height } = told.window;
    const x = Math.floor((left + (((cell % told.columns) + 0.5) / told.columns) * width) * info.width);
    const y = Math.floor(
      (top + ((Math.floor(cell / told.columns) + 0.5) / told.rows) * height) * info.height,
    );
    const pixel = (y * info.width + x) * 3;
    return [0, 1, 2].reduce((sum, i) => sum + Math.abs(data[pixel + i]! - plain[pixel + i]!), 0);
  };
  expect(changed(values.indexOf(Math.max(...values)))).toBeGreaterThan(30);
  expect(changed(values.indexOf(Math.min(...values)))).toBeLessThan(
    changed(values.indexOf(Math.max(...values))),
  );
});

it('compares modalities, and proposes a layer that can be overruled', async () => {
  const modality = await succeed('modality', ...model, ...one, '--no-noise', '--png', at('modality.png'));
  await expectCharts(at('modality.png'), 2);
  expect(modality).toMatch(/layer +text +visual +top_3_visual +visual_share\n/);
  const proposed = await succeed('propose', ...model, ...one, '--layer', '1');
  expect(proposed).toMatch(/Proposed for an editor of the picture’s rows: layer \d/);
  expect(proposed).toMatch(/Measured on 1 input;/);
  expect(proposed).toContain('emend train --layer 1 …');
});

it('looks at an edit of the library as it acts, with its influence', async () => {
  const folder = fixture('checkpoints/llava_tiny');
  await writeMappedAdapter(at('adapter'), folder);
  const library = ['--library', at('library.emend')];
  const more = [...model, '--adapter', at('adapter'), ...library];
  const added = spawn(
    process.execPath,
    [cli, 'edit', 'add', ...library, ...one, '--target', 'the cat', '--json'],
    { env: { ...process.env, XDG_DATA_HOME: base } },
  );
  await new Promise((resolve) => added.on('close', resolve));
  const told = JSON.parse(
    await succeed(
      'visual',
      ...more,
      '--edit',
      '1',
      '--layer',
      '1,3',
      '--draws',
      '1',
      '--png',
      at('edited'),
      '--json',
    ),
  );
  expect(told.layers[1].after).not.toEqual(told.layers[1].before);
  expect(told.influence.values).toHaveLength(16);
  expect((await readdir(at('edited'))).sort()).toEqual([
    ...['influence.png', 'layer-01-edited.png', 'layer-01.png', 'layer-03-edited.png', 'layer-03.png'],
  ]);
});

it('says what is missing or cannot be', async () => {
  const refusals: ReadonlyArray<readonly [string[], RegExp]> = [
    [['modules', ...model], /either --image with --prompt, or --data, or --edit/],
    [['modules', ...model, ...one, '--data', at('edits.json')], /either --image with --prompt/],
    [['visual', ...model, '--edit', '1', '--library', at('none.emend')], /no edit 1/],
    [['visual', ...model, '--image', fixture('images/a.png')], /either --image with --prompt/],
    [['visual', ...model, ...one, '--layer', '9'], /give layers 0 to 5/],
    [['propose', ...model, ...one, '--layer', '5'], /takes layers 0 to 4/],
    [['modules', ...model, ...one, '--library', at('x.emend')], /go with --edit/],
    [['modules', ...model, '--data', at('none.json')], /none\.json/],
  ];
  const ended = await Promise.all(refusals.map(([args]) => emend(...args)));
  for (const [index, { code, said }] of ended.entries()) {
    const [args, pattern] = refusals[index]!;
    expect(said, args.join(' ')).toMatch(pattern);
    expect(said).toMatch(/^emend: [^\n]+\n$/);
    expect(code).toBe(1);
  }
});

it('compares what a gate could at the layers asked for or an adapter’s, and writes the figure', async () => {
  const set = ['--data', at('edits.json'), '--images', join(fixture('images/a.png'), '..'), '--limit', '2'];
  const told = JSON.parse(await succeed('gate', ...model, ...set, '--layers', '3,1', '--json'));
  expect(told.findings.map(({ layer }: { layer: number }) => layer)).toEqual([1, 1, 1, 1, 1, 3, 3, 3, 3, 3]);
  expect(told.data).toMatchObject({ name: 'edits.json', edits: 2 });
  const adapter = at('dual');
  await mkdir(adapter);
  await writeFile(join(adapter, 'adapter.json'), JSON.stringify({ editor: 'DualEdit', textLayer: 2 }));
  const text = await succeed('gate', ...model, ...set, '--adapter', adapter, '--out', at('gate'));
  expect(text).toMatch(/^layer 2 +threshold +balanced/);
  expect(text).toContain('Cosines of 2 edits');
  expect((await readdir(at('gate'))).sort()).toEqual(['gate.csv', 'gate.html', 'gate.json']);
  const { code, said } = await emend('gate', ...model, ...set, '--layers', '5');
  expect(code).not.toBe(0);
  expect(said).toContain('Layer 5 cannot be compared at: this model takes layers 0 to 4.');
});
