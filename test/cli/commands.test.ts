/** @file The command line as people run it: real child processes on tiny checkpoints. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readScopeFiles } from '../../electron/editors/scope/learned/scopeFile.ts';
import {
  openSafetensors,
  readTensor,
  type StoredTensor,
  type WritableTensor,
  writeSafetensors,
} from '../../electron/files/safetensors.ts';

import { openLibrary } from '../../electron/library/library.ts';
import { readSettings, writeSettings } from '../../electron/library/settings.ts';
import { openCheckpoint } from '../../electron/models/open.ts';

import { writeTinyAdapter } from '../evaluation/tinyAdapter.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { largestDifference } from '../support/fixtures.ts';

const cli = join(import.meta.dirname, '../../electron/cli.ts');

let base: string;
let model: string;
let picture: string;
const at = (name: string) => join(base, name);

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-cli-'));
  model = at('model');
  await writeTinyCheckpoint(model);
  picture = at('a.png');
  await paint(picture, 40);
});
afterAll(() => rm(base, { recursive: true, force: true }));

async function paint(path: string, shade: number): Promise<void> {
  const pixels = Uint8Array.from({ length: 40 * 32 * 3 }, (_, i) => (i * shade) % 251);
  await sharp(pixels, { raw: { width: 40, height: 32, channels: 3 } })
    .png()
    .toFile(path);
}

interface Finished {
  readonly code: number | null;
  readonly out: string;
  readonly said: string;
}

function emend(...args: string[]): Promise<Finished> {
  return finished(spawn(process.execPath, [cli, ...args], { env: { ...process.env, XDG_DATA_HOME: base } }));
}

function finished(child: ReturnType<typeof spawn>): Promise<Finished> {
  const [out, said]: [Buffer[], Buffer[]] = [[], []];
  child.stdout!.on('data', (data) => out.push(data));
  child.stderr!.on('data', (data) => said.push(data));
  const text = (parts: Buffer[]) => Buffer.concat(parts).toString();
  return new Promise((resolve) => {
    child.on('close', (code) => resolve({ code, out: text(out), said: text(said) }));
  });
}

async function succeed(...args: string[]): Promise<string> {
  const { code, out, said } = await emend(...args);
  expect(said, args.join(' ')).toBe('');
  expect(code).toBe(0);
  return out;
}

/** One line that says what is wrong, and exit code 1. */
async function fail(pattern: RegExp, ...args: string[]): Promise<void> {
  const { code, said } = await emend(...args);
  expect(said).toMatch(pattern);
  expect(said).toMatch(/^emend: [^\n]+\n$/);
  expect(code).toBe(1);
}

describe('emend inspect', () => {
  it('tells what a folder holds, for people and for programs', async () => {
    expect(await succeed('inspect', model)).toMatch(/LLaVA[\s\S]*4 layers, 32 wide[\s\S]*16 visual tokens/);
    const told = JSON.parse(await succeed('inspect', model, '--json'));
    expect(told).toMatchObject({ layers: 4, hidden: 32, dtype: 'F32', adapter: null });
    expect(told.tensors).toContainEqual(
      expect.objectContaining({ name: 'language_model.model.norm.weight', shape: [32] }),
    );
  });
});

describe('emend ask', () => {
  const question = [
    '--prompt',
    'What is the animal?',
    '--max-new-tokens',
    '4',
    '--provider',
    'cpu',
    '--json',
  ];
  const ask = async (...more: string[]) =>
    JSON.parse(await succeed('ask', '--model', model, ...question, ...more));

  it('prints answer, tokens with alternatives, provider and times', async () => {
    const told = await ask('--image', picture);
    expect(told).toMatchObject({ prompt: 'What is the animal?', provider: 'cpu', routing: null });
    expect(told.tokens.length).toBeGreaterThan(0);
    for (const { id, text, probability, alternatives } of told.tokens) {
      // Greedy: the token is the first of its five alternatives.
      expect(alternatives).toHaveLength(5);
      expect(alternatives[0]).toEqual({ id, text, probability });
    }
    expect(told.times.total).toBeGreaterThanOrEqual(told.times.generation);
  });

  it('appends the suffix, asks in text alone, and samples the same for the same seed', async () => {
    const [suffixed, spaced, text, one, same] = await Promise.all([
      ask('--image', picture, '--suffix'),
      // The last of two counts.
      ask('--prompt', '  What is the animal? '),
      ask(),
      ask('--temperature', '2', '--seed', '5'),
      ask('--temperature', '2', '--seed', '5'),
    ]);
    expect(suffixed.prompt).toBe('What is the animal? The answer is:');
    expect({ ...spaced, times: 0 }).toEqual({ ...text, times: 0 });
    expect(text.tokens[0].probability).not.toBe(suffixed.tokens[0].probability);
    expect({ ...one, times: 0 }).toEqual({ ...same, times: 0 });
  });
});

describe('emend trace', () => {
  const traced = new Map<string, Promise<Map<string, StoredTensor>>>();
  /** The picture and prompt traced through a folder, once. */
  const traceOf = (folder: string) => {
    const known = traced.get(folder) ?? traceInto(`${folder}.trace`, '--model', folder, ...prompt());
    traced.set(folder, known);
    return known;
  };
  const prompt = () => ['--image', picture, '--prompt', 'What is the animal?'];
  async function traceInto(out: string, ...args: string[]) {
    await succeed('trace', ...args, '--out', out, '--max-new-tokens', '4', '--provider', 'cpu');
    const file = await openSafetensors(out);
    const tensors = new Map<string, StoredTensor>();
    for (const name of file.tensors.keys()) tensors.set(name, await readTensor(file, name));
    return tensors;
  }
  const values = (tensors: Map<string, StoredTensor>, name: string) =>
    Float64Array.from(tensors.get(name)!.data, Number);
  const length = (data: Float64Array) => Math.sqrt(data.reduce((sum, value) => sum + value * value, 0));
  const scale = (data: ArrayLike<number>) => Array.from(data).reduce((a, b) => Math.max(a, Math.abs(b)), 0);

  it('holds every tensor with its shape', async () => {
    const tensors = await traceOf(model);
    const rows = tensors.get('input_ids')!.shape[1]! - 1 + 16;
    const shapes = Object.fromEntries([...tensors].map(([name, { shape }]) => [name, shape]));
    expect(shapes).toMatchObject({
      ...{ pixel_values: [1, 3, 28, 28], visual_embeddings: [1, 16, 32] },
      ...{ 'hidden_states.0': [1, rows, 32], 'attention_outputs.3': [1, rows, 32] },
      'mlp_outputs.3': [1, rows, 32],
    });
    expect(shapes['logits']!.slice(0, 2)).toEqual([1, rows]);
    expect(shapes).not.toHaveProperty('hidden_states.4');
    expect(tensors.get('input_ids')!.dtype).toBe('I64');
    expect(tensors.get('generated_ids')!.dtype).toBe('I64');
  });

  it('adds up: a layer’s output is its input, attention and MLP', async () => {
    const tensors = await traceOf(model);
    const [input, attention, mlp, output] = [
      'hidden_states.1',
      'attention_outputs.2',
      'mlp_outputs.2',
      'hidden_states.2',
    ].map((name) => values(tensors, name));
    const sum = input!.map((value, i) => value + attention![i]! + mlp![i]!);
    expect(largestDifference(sum, output!)).toBeLessThan(1e-5);
  });

  it('is the same from its own pixel_values and input_ids', async () => {
    const first = await traceOf(model);
    const inputs = at('inputs.safetensors');
    const taken = ['pixel_values', 'input_ids'].map((name) => [name, first.get(name)!] as const);
    await writeSafetensors(inputs, new Map(taken as Array<[string, WritableTensor]>));
    const again = await traceInto(at('again.trace'), '--model', model, '--inputs', inputs);
    for (const name of first.keys()) expect(values(again, name), name).toEqual(values(first, name));
  });

  it('gives for F16 in shards what its own weights give in F32, and nearly what the unrounded ones give', async () => {
    const half = at('half');
    await writeTinyCheckpoint(half, { dtype: 'F16', shards: 3, naming: 'newer' });
    const widened = at('widened');
    await cp(model, widened, { recursive: true });
    const { weights } = await openCheckpoint(half);
    const tensors = new Map<string, WritableTensor>();
    for (const name of weights.names()) {
      tensors.set(name, { dtype: 'F32', shape: weights.find(name)!.shape, data: await weights.read(name) });
    }
    await writeSafetensors(join(widened, 'model.safetensors'), tensors, { format: 'pt' });

    const [rounded, exact, full] = await Promise.all([half, widened, model].map(traceOf));
    for (const name of full!.keys()) {
      const [ours, own, unrounded] = [rounded!, exact!, full!].map((trace) => values(trace, name));
      if (name === 'generated_ids') expect(ours).toEqual(own);
      else {
        const size = scale(own!);
        expect(largestDifference(ours!, own!) / size, name).toBeLessThan(2e-6);
        // F16 rounds a weight by up to 5e-4 of it; four layers add to that, and a wrong weight is 1000 times as far.
        const difference = ours!.map((value, i) => value - unrounded![i]!);
        expect(length(difference) / length(unrounded!), name).toBeLessThan(2e-3);
      }
    }
  });

  it('refuses inputs that do not fit', async () => {
    const refused = async (tensors: Record<string, WritableTensor>, pattern: RegExp) => {
      const path = join(await mkdtemp(at('in-')), 'in.safetensors');
      await writeSafetensors(path, new Map(Object.entries(tensors)));
      const to = ['--out', at('never.trace'), '--provider', 'cpu'];
      await fail(pattern, 'trace', '--model', model, '--inputs', path, ...to);
    };
    const ids = (...list: number[]): WritableTensor => ({
      ...{ dtype: 'I64', shape: [1, list.length], data: BigInt64Array.from(list, BigInt) },
    });
    const pixels: WritableTensor = { dtype: 'F32', shape: [1, 3, 4, 4], data: new Float32Array(48) };
    await Promise.all([
      refused({ pixel_values: pixels }, /input_ids/),
      refused({ input_ids: ids(1, 5, 99_999) }, /99999/),
      refused({ input_ids: ids(1, 5), pixel_values: pixels }, /image tokens/),
      refused({ input_ids: pixels }, /input_ids is F32/),
    ]);
    const bad = at('bad.safetensors');
    await writeFile(bad, 'not tensors');
    await fail(
      /bad\.safetensors/,
      'trace',
      '--model',
      model,
      '--inputs',
      bad,
      '--out',
      at('never.trace'),
      '--provider',
      'cpu',
    );
  });
});

describe('what is wrong with a checkpoint or a picture is one line', () => {
  async function broken(change: (folder: string) => Promise<unknown>, shards = 1): Promise<string> {
    const folder = await mkdtemp(at('broken-'));
    await writeTinyCheckpoint(folder, { shards });
    await change(folder);
    return folder;
  }
  const rewrite = async (path: string, change: (json: Record<string, unknown>) => unknown) =>
    writeFile(path, JSON.stringify(change(JSON.parse(await readFile(path, 'utf8')))));
  /** Changes the header of the one weights file, keeping its length. */
  const header = async (folder: string, change: (text: string) => string) => {
    const path = join(folder, 'model.safetensors');
    const bytes = await readFile(path);
    const length = Number(bytes.readBigUInt64LE(0));
    const text = bytes.subarray(8, 8 + length).toString();
    bytes.write(change(text).padEnd(length).slice(0, length), 8);
    await writeFile(path, bytes);
  };

  it.each([
    [
      'an architecture Emend does not run',
      /mamba/,
      (folder: string) =>
        rewrite(join(folder, 'config.json'), (json) => ({
          ...json,
          model_type: 'mamba',
          architectures: ['M'],
        })),
    ],
    [
      'offsets that overlap',
      /model\.safetensors/,
      (folder: string) =>
        header(folder, (text) => text.replace(/"data_offsets":\[(\d+),(\d+)\]/, '"data_offsets":[0,1]')),
    ],
    [
      'a size that is not the shape’s',
      /model\.safetensors/,
      (folder: string) => header(folder, (text) => text.replace(/"shape":\[32,/, '"shape":[31,')),
    ],
    [
      'a dtype Emend does not read',
      /I32/,
      (folder: string) => header(folder, (text) => text.replaceAll('"F32"', '"I32"')),
    ],
    [
      'a truncated weights file',
      /model\.safetensors/,
      async (folder: string) => {
        const path = join(folder, 'model.safetensors');
        await writeFile(path, (await readFile(path)).subarray(0, 5000));
      },
    ],
  ])('%s', async (_, pattern, change) => {
    await fail(pattern, 'inspect', await broken(change));
  });

  it('a missing shard, by name', async () => {
    const shard = 'model-00002-of-00002.safetensors';
    await fail(/model-00002-of-00002/, 'inspect', await broken((folder) => rm(join(folder, shard)), 2));
  });

  const askWith = (folder: string, image = picture) =>
    ['ask', '--model', folder, '--image', image, '--prompt', 'What?', '--provider', 'cpu'] as const;

  it('a tokenizer without the image token', async () => {
    const folder = await broken((path) =>
      rewrite(join(path, 'tokenizer.json'), (json) => ({
        ...json,
        added_tokens: (json['added_tokens'] as Array<{ content: string }>).filter(
          ({ content }) => content !== '<image>',
        ),
      })),
    );
    await fail(/image token/, ...askWith(folder));
  });

  it('pictures that are missing, truncated, enormous, or none', async () => {
    const [short, none, huge] = [at('short.png'), at('none.png'), at('huge.png')];
    const whole = await readFile(picture);
    await writeFile(short, whole.subarray(0, whole.length / 2));
    await writeFile(none, 'hello');
    // The header of a picture of 60 000 × 60 000 pixels; nobody should decode it.
    const header = Buffer.from(whole);
    header.writeUInt32BE(60_000, 16);
    header.writeUInt32BE(60_000, 20);
    await writeFile(huge, header);
    await fail(/no-such\.png is missing/, ...askWith(model, at('no-such.png')));
    for (const bad of [short, none, huge]) await fail(/picture/i, ...askWith(model, bad));
  });

  it('a folder that is not there, and a provider that cannot be had', async () => {
    await fail(/no folder .*nowhere/, 'inspect', at('nowhere'));
    const { code, said } = await emend('ask', '--model', model, '--prompt', 'x', '--provider', 'dml');
    if (process.platform !== 'win32') {
      expect(said).toMatch(/^emend: No execution provider could load this model\. dml: /m);
      expect(code).toBe(1);
    }
  });

  it('a command that cannot be meant: exit code 2', async () => {
    const wrong = [
      ['ask', '--model', model],
      ['ask', '--prompt', 'x', '--provider', 'abacus'],
      ['trace', '--prompt', 'x'],
      ['edit', 'show', 'first'],
      ['no-such-command'],
    ];
    for (const { code, said } of await Promise.all(wrong.map((args) => emend(...args)))) {
      expect(said).toMatch(/^error: /);
      expect(code).toBe(2);
    }
  });
});

describe('emend edit, and emend ask --edited', () => {
  const library = () => ['--library', at('curator.emend')];
  const json = async (...args: string[]) => JSON.parse(await succeed(...args, ...library(), '--json'));
  const question = () => ['--image', picture, '--prompt', 'What is the animal?'];
  const askEdited = (...more: string[]) =>
    json('ask', '--edited', ...question(), '--max-new-tokens', '4', ...more);

  it('goes from a draft over a check to a committed edit that acts, and is retired', {
    timeout: 300_000,
  }, async () => {
    await writeTinyAdapter(at('adapter'), model, 0.99);
    const open = ['--model', model, '--adapter', at('adapter'), '--provider', 'cpu'];
    const first = await emend('ask', '--edited', ...question(), ...open, ...library(), '--json');
    expect(first.code).toBe(0);
    expect(JSON.parse(first.out)).toMatchObject({
      routing: { edit: null, closest: null, matches: [] },
      provider: 'cpu',
    });
    // The choice was for one question; what the library says stays, until it is said there.
    const kept = openLibrary(at('curator.emend'));
    expect(readSettings(kept).providers).toEqual([]);
    writeSettings(kept, { providers: ['cpu'] });
    kept.close();
    if (process.platform !== 'win32')
      await fail(
        /dml/,
        'ask',
        '--edited',
        ...question(),
        ...library(),
        '--provider',
        'dml',
        '--model',
        model,
      );

    const made = await json(
      'edit',
      'add',
      ...question(),
      '--target',
      'the cat',
      '--rephrase',
      'Which animal?',
    );
    expect(made).toMatchObject({ id: 1, status: 'draft', target: 'the cat' });
    const other = at('b.png');
    await paint(other, 90);
    await json('edit', 'add', '--image', other, '--prompt', 'How many?', '--target', 'two');
    expect((await json('edit', 'list', '--status', 'draft')).map(({ id }: { id: number }) => id)).toEqual([
      2, 1,
    ]);

    // A random adapter does not say what it should: the check fails, and says so with its exit code.
    const check = await emend('edit', 'check', '1', ...library());
    expect(check.out).toMatch(/✗ reliability +0 of 1[\s\S]*The check fails/);
    expect(check.code).toBe(1);
    await fail(/failing check/, 'edit', 'commit', '1', ...library());
    const committed = await json('edit', 'commit', '1', '--reason', 'to see it act');
    expect(committed).toMatchObject({ status: 'committed', overrideReason: 'to see it act' });

    // Those of a filter, at once.
    const those = ['--search', 'how many', ...library(), '--json'];
    const set = await emend('edit', 'check', '--status', 'draft', ...those);
    expect(JSON.parse(set.out).results).toMatchObject([{ edit: 2 }]);
    const reason = ['--status', 'draft', 'checked', 'failed', '--reason', 'as a set'];
    expect(JSON.parse((await emend('edit', 'commit', ...reason, ...those)).out).committed).toEqual([2]);
    expect(JSON.parse(await succeed('edit', 'retire', '--status', 'committed', ...those)).changed).toBe(1);

    const acted = await askEdited();
    expect(acted.routing).toMatchObject({ edit: 1 });
    const plain = JSON.parse(
      await succeed(
        'ask',
        '--model',
        model,
        ...question(),
        '--max-new-tokens',
        '4',
        '--provider',
        'cpu',
        '--json',
      ),
    );
    expect(acted.tokens[0].probability).not.toBe(plain.tokens[0].probability);
    expect(await succeed('ask', '--edited', ...question(), ...library())).toMatch(/Edit 1 acted/);

    expect(await json('edit', 'retire', '1', '--reason', 'seen')).toMatchObject({ status: 'retired' });
    const after = await askEdited();
    expect(after.routing.edit).toBeNull();
    expect(after.answer).toBe(plain.answer);
    expect(await json('edit', 'restore', '1')).toMatchObject({ status: 'stale' });
    const shown = await json('edit', 'show', '1');
    expect(shown.history.map(({ what }: { what: string }) => what)).toEqual(
      expect.arrayContaining(['created', 'checked', 'committed', 'retired', 'restored']),
    );
    await fail(/no edit 7/i, 'edit', 'show', '7', ...library());
    // an adapter goes with the model used last, and is not passed over without one
    await fail(/no adapter at/, 'edit', 'preview', '1', '--adapter', at('nowhere'), ...library());
    const again = [
      '--image',
      picture,
      '--prompt',
      'Which one?',
      '--target',
      'a cat',
      '--rephrase',
      'which one?',
    ];
    await fail(/already asks this prompt/, 'edit', 'add', ...again, ...library());
    expect(await json('edit', 'list')).toHaveLength(2);
  });
});

describe('emend edit export-model', () => {
  it('writes edits of weights into a checkpoint that answers as they do; edits of rows it refuses', async () => {
    const own = ['--library', at('weights.emend')];
    const asked = ['--image', picture, '--prompt', 'What is the animal?'];
    const open = ['--model', model, '--editor', 'FT-L', '--setting', 'steps=60', '--setting', 'rate=0.02'];
    await succeed('edit', 'add', ...asked, '--target', 'a small cat', ...own);
    const none = at('none');
    await fail(/No edit is committed/, 'edit', 'export-model', none, ...open, ...own);
    await succeed('edit', 'preview', '1', ...open, ...own);
    await succeed('edit', 'commit', '1', '--reason', 'a trial', ...open, ...own);
    const told = JSON.parse(await succeed('edit', 'export-model', at('written'), ...open, ...own, '--json'));
    expect(told).toMatchObject({ edits: 1, path: at('written'), written: ['model.safetensors'] });
    const plain = ['--provider', 'cpu', '--json'];
    const answer = async (folder: string) =>
      JSON.parse(await succeed('ask', '--model', folder, ...asked, ...plain)).answer;
    expect(await answer(at('written'))).toMatch(/^a small cat/);
    expect(await answer(model)).not.toMatch(/^a small cat/);
    await succeed('edit', 'export-model', at('delta.safetensors'), '--delta', ...open, ...own);
    expect((await openSafetensors(at('delta.safetensors'))).tensors.size).toBe(1);

    await writeTinyAdapter(at('rows-adapter'), model, 0.9);
    const rows = ['--model', model, '--adapter', at('rows-adapter')];
    await succeed('edit', 'add', ...asked.slice(0, 2), '--prompt', 'Which one?', '--target', 'apple', ...own);
    await succeed('edit', 'preview', '2', ...rows, ...own);
    await succeed('edit', 'commit', '2', '--reason', 'a trial', ...rows, ...own);
    await fail(/are no changes of weights/, 'edit', 'export-model', none, ...rows, ...own);
    expect(existsSync(none)).toBe(false);
  }, 240_000);
});

describe('emend bench', () => {
  const arrange = async (records: number) => {
    await writeTinyAdapter(at('bench-adapter'), model, 0.9);
    const record = {
      ...{ src: 'What is the animal?', rephrase: 'Which animal?', pred: '', alt: 'the cat' },
      ...{ image: 'a.png', image_rephrase: 'a.png', loc: 'Is there a tree?', loc_ans: 'yes' },
      ...{ m_loc: 'a.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
    };
    await writeFile(at('set.json'), JSON.stringify(new Array(records).fill(record)));
    return [
      'bench',
      '--model',
      model,
      '--adapter',
      at('bench-adapter'),
      '--provider',
      'cpu',
      '--data',
      at('set.json'),
    ];
  };

  it('prints every metric in both tellings and writes what repeats it', async () => {
    const command = await arrange(3);
    const out = await succeed(
      ...command,
      '--limit',
      '2',
      '--max-new-tokens',
      '4',
      '--json',
      at('bench.json'),
    );
    for (const label of [
      'reliability',
      'text generality',
      'image generality',
      'image locality',
      'mean of the five',
    ]) {
      expect(out).toMatch(new RegExp(`^${label} +[\\d.]+ \\([\\d.]+–[\\d.]+\\) +[\\d.]+ \\(`, 'm'));
    }
    expect(out).toMatch(/^text locality +100\.0 \* .*100\.0 \*/m);
    expect(out).toMatch(/by construction: VisEdit changes visual rows only/);
    expect(out).toMatch(/other picture, same question +[\d.]+/);
    const written = JSON.parse(await readFile(at('bench.json'), 'utf8'));
    expect(written).toMatchObject({
      model: { fingerprint: expect.stringMatching(/^[0-9a-f]{64}$/) },
      adapter: { fingerprint: expect.stringMatching(/^[0-9a-f]{64}$/) },
      setting: { data: { taken: 2, total: 3 }, scope: null, provider: 'cpu', promptTemplate: 'plain' },
    });
    expect(written.records).toHaveLength(2);
  });

  it('stops at Ctrl+C with one line', async () => {
    const command = await arrange(5000);
    const child = spawn(process.execPath, [cli, ...command]);
    const ended = finished(child);
    setTimeout(() => child.kill('SIGINT'), 15_000);
    expect(await ended).toEqual({
      ...{ code: 1, out: '' },
      said: expect.stringMatching(/^emend: (Stopped|Generation was stopped|Opening was stopped)[^\n]*\n$/),
    });
  });

  it('compares editors in one report, goes on where it was, and tells an editor that cannot be measured', async () => {
    const [, , , , , ...rest] = await arrange(2);
    const folder = at('compared-adapters');
    await writeTinyAdapter(join(folder, 'own'), model, 0.9);
    const other = at('compared-other');
    await writeTinyCheckpoint(other, { seed: 3 });
    // Linked to, as caches keep them.
    await writeTinyAdapter(at('strange-adapter'), other, 0.9);
    await symlink(at('strange-adapter'), join(folder, 'strange'));
    const out = at('comparison');
    const command = [
      ...['bench', '--model', model, ...rest, '--editor', 'VisEdit,IKE', '--adapters', folder, '--out', out],
      ...['--at', '1,2', '--limit', '1', '--seeds', '2', '--limit-probes', '1', '--max-new-tokens', '3'],
    ];
    const { out: said, said: warned } = await emend(...command);
    // What cannot be measured is told before anything is.
    expect(warned).toMatch(/^VisEdit, adapter strange: [^\n]+trained for another model[^\n]+\n$/);
    expect(said).toMatch(/^VisEdit, no scope +[\d.]+ \/ [\d.]+ +–$/m);
    expect(said).toMatch(/^VisEdit, behind the router +[\d.]+ \/ [\d.]+ +[\d.]+ \/ [\d.]+$/m);
    expect(said).toMatch(/^VisEdit, no scope +.*trained for another model/m);
    expect(said).toMatch(/^IKE, behind the router +[\d.]+/m);
    const report = JSON.parse(await readFile(join(out, 'report.json'), 'utf8'));
    expect(report.editors).toHaveLength(6);
    expect(report.editors[0]).toMatchObject({
      editor: 'VisEdit',
      cost: { bytes: expect.any(Number) },
      failed: null,
    });
    expect(await readFile(join(out, 'report.html'), 'utf8')).toContain('IKE');

    // What was measured stays; what is missing is measured again.
    const runs = (await readdir(join(out, 'runs'))).filter((name) => name.endsWith('.json'));
    const times = async () =>
      Promise.all(runs.map(async (name) => (await stat(join(out, 'runs', name))).mtimeMs));
    const before = await times();
    const again = runs.findIndex((name) => name.startsWith('IKE-no-scope'));
    await rm(join(out, 'runs', runs[again]!.replace('.json', '.key')));
    expect((await emend(...command)).out).toBe(said);
    expect((await times()).map((time, place) => time !== before[place])).toEqual(
      runs.map((_, place) => place === again),
    );
  }, 240_000);

  it('compares them on several models, each in a folder of its own, with one table of all', async () => {
    await arrange(2);
    const folder = at('adapters-of-both');
    await writeTinyAdapter(join(folder, 'own'), model, 0.9);
    const other = at('second model');
    await writeTinyCheckpoint(other, { seed: 5 });
    const out = at('both');
    const command = [
      ...['bench', '--editor', 'VisEdit,IKE', '--model', model, '--model', other, '--provider', 'cpu'],
      ...['--data', at('set.json'), '--adapters', folder, '--out', out, '--limit', '1'],
      ...['--max-new-tokens', '2'],
    ];
    const said = await succeed(...command);
    expect(said).toMatch(/^second model on set\.json$/m);
    const parts = JSON.parse(await readFile(join(out, 'overview.json'), 'utf8')).parts as Array<{
      folder: string;
    }>;
    const editors = await Promise.all(
      parts.map(async (part) => {
        const report = JSON.parse(await readFile(join(out, part.folder, 'report.json'), 'utf8'));
        return report.editors.map(({ editor, failed }: { editor: string; failed: string | null }) => {
          expect(failed).toBeNull();
          return editor;
        });
      }),
    );
    // The adapter is for the first model alone.
    expect(editors).toEqual([
      ['VisEdit', 'VisEdit', 'IKE', 'IKE'],
      ['IKE', 'IKE'],
    ]);
    expect((await readFile(join(out, 'overview.csv'), 'utf8')).trim().split('\n')).toHaveLength(1 + 2 * 6);
    await fail(/name them with --editor/, ...command.slice(0, 1), ...command.slice(3));
  }, 240_000);

  it('refuses an adapter of another model', async () => {
    const [bench, , , ...rest] = await arrange(1);
    const other = at('other-model');
    await writeTinyCheckpoint(other, { seed: 2 });
    await fail(/trained for another model/, bench!, '--model', other, ...rest);
  });
});

describe('emend train', () => {
  it('stops at Ctrl+C, says so and ends, workers and all', async () => {
    const repository = join(import.meta.dirname, '../..');
    const [work, out] = [at('training'), at('stopped-adapter')];
    const child = spawn(
      process.execPath,
      [
        ...[cli, 'train', '--model', join(repository, 'resources/demo-model')],
        ...['--data', join(repository, 'electron/demo/editingSource.ts'), '--out', out, '--work', work],
        ...['--layer', '0', '--steps', '100000', '--batch', '1', '--middle', '32', '--influence-middle', '8'],
        ...['--heads', '2', '--provider', 'cpu'],
      ],
      { env: { ...process.env, XDG_DATA_HOME: base } },
    );
    const ended = finished(child);
    while (!existsSync(work)) await new Promise((resolve) => setTimeout(resolve, 50));
    // as where npm or npx passes on what the terminal sent already
    child.kill('SIGINT');
    setTimeout(() => child.kill('SIGINT'), 20);
    const { code, said } = await ended;
    expect(code).not.toBe(0);
    expect(said).toMatch(/Training was stopped after \d+ steps; it goes on from there/);
    expect(existsSync(join(work, 'state.safetensors'))).toBe(true);
    expect(existsSync(out)).toBe(false);
  }, 60_000);

  it('says which rows of a set are left out, and why, how quick it is, how long it takes and in what memory', async () => {
    const record = {
      ...{ src: 'What is the animal?', rephrase: 'Which animal?', pred: '', alt: 'the cat' },
      ...{ image: 'a.png', image_rephrase: 'a.png', loc: 'Is there a tree?', loc_ans: 'yes' },
      ...{ m_loc: 'a.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
    };
    const rows = [record, { ...record, image: 'nowhere.png' }, { ...record, alt: undefined }];
    await writeFile(at('holes.json'), JSON.stringify(rows));
    const training = [
      ...['train', '--model', model, '--data', at('holes.json'), '--out', at('holes'), '--steps', '3'],
      ...['--batch', '1', '--rows', '64', '--middle', '16', '--influence-middle', '8', '--heads', '2'],
      ...['--layer', '1', '--provider', 'cpu'],
    ];
    const { code, out, said } = await emend(...training);
    expect(code).toBe(0);
    const figures = ' {2} +\\d+\\.\\d edits/s {2} +\\d+\\.\\d GB {2}loss \\d';
    expect(out).toMatch(new RegExp(`^2/3 {2} +\\d+\\.\\d min {2} +\\d+\\.\\d min left${figures}`, 'm'));
    expect(out).toMatch(new RegExp(`^3/3 {2} +\\d+\\.\\d min {2} +0\\.0 min left${figures}`, 'm'));
    expect(out).not.toMatch(/ 0\.0 (GB|edits)/);
    expect(said.match(/^2 of the 3 rows of .*holes\.json are left out:$/gm)).toHaveLength(1);
    expect(said).toMatch(/^ {2}row 2: .*nowhere\.png/m);
    expect(said).toMatch(/^ {2}row 3: /m);
    expect(await readdir(join(base, 'emend', 'picture-cache'))).toHaveLength(1);
  }, 240_000);
});

describe('emend sweep', () => {
  it('trains one thing changed at a time, measures each, and does nothing twice', async () => {
    const record = {
      ...{ src: 'What is the animal?', rephrase: 'Which animal?', pred: '', alt: 'the cat' },
      ...{ image: 'a.png', image_rephrase: 'a.png', loc: 'Is there a tree?', loc_ans: 'yes' },
      ...{ m_loc: 'a.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
    };
    await writeFile(at('sweep.json'), JSON.stringify([record, record]));
    const out = at('sweep');
    const training = [
      ...['--model', model, '--data', at('sweep.json'), '--steps', '1', '--batch', '1', '--rows', '64'],
      ...['--middle', '16', '--influence-middle', '8', '--heads', '2', '--layer', '1', '--provider', 'cpu'],
    ];
    const command = (...own: string[]) => [
      ...['sweep', '--test', at('sweep.json'), '--limit', '1', '--out', out, ...own, '--', ...training],
    ];
    const variants = [
      '--layers',
      '0,2',
      '--variant',
      'no mapper: --no-influence-mapper',
      '--variant',
      'too high: --layer 9',
      '--variant',
      'mistyped: --no-such-option',
    ];
    const said = await succeed(...command(...variants));
    for (const name of ['layer 0', 'layer 2', 'no mapper'])
      expect(said).toMatch(new RegExp(`^${name}, no scope +[\\d.]+ / [\\d.]+$`, 'm'));
    expect(said).toMatch(/^too high, no scope .*9/m);
    expect(said).toMatch(/^mistyped, no scope .*no-such-option/m);
    const layer = async (name: string) =>
      JSON.parse(await readFile(join(out, name, 'adapter', 'adapter.json'), 'utf8'));
    expect(await layer('layer-2')).toMatchObject({ layer: 2, influenceMapper: true });
    expect(await layer('no-mapper')).toMatchObject({ layer: 1, influenceMapper: false });
    const { editors, command: typed } = JSON.parse(await readFile(join(out, 'report.json'), 'utf8'));
    expect(typed).toMatch(/^npx emend sweep .* --variant 'no mapper: --no-influence-mapper' .* -- --model /);
    expect(editors.map(({ editor }: { editor: string }) => editor)).toEqual([
      'layer 0',
      'layer 2',
      'no mapper',
      'too high',
      'mistyped',
    ]);

    const files = ['layer-0/adapter/adapter.json', 'layer-2/bench.json', 'no-mapper/bench.json'];
    const times = () => Promise.all(files.map(async (name) => (await stat(join(out, name))).mtimeMs));
    const before = await times();
    expect(await succeed(...command(...variants))).toBe(said);
    expect(await times()).toEqual(before);

    await fail(/Nothing differs/, ...command());
    await fail(/"layer 0" is there twice/, ...command('--layers', '0', '--variant', 'layer 0: --layer 1'));
  }, 240_000);
});

describe('emend train scope', () => {
  it('trains a scope from an editing set and saves it beside the adapter, whose edits it then routes', async () => {
    const adapter = at('scoped-adapter');
    await writeTinyAdapter(adapter, model, 0.9);
    const things = ['fox', 'lime', 'tram', 'pear', 'ship', 'fir', 'owl', 'plum', 'bus', 'elm'];
    const records = await Promise.all(
      Array.from({ length: 30 }, async (_, place) => {
        const name = `scope-${place}.png`;
        await paint(at(name), 7 + 3 * place);
        const thing = things[place % things.length]!;
        return {
          ...{ src: `Is it a ${thing}?`, rephrase: `Is that a ${thing}?`, pred: '', alt: 'the cat' },
          ...{ image: name, image_rephrase: name, loc: 'Is there a tree?', loc_ans: 'yes' },
          ...{ m_loc: 'a.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
        };
      }),
    );
    await writeFile(at('scope.json'), JSON.stringify(records));
    const command = ['train', 'scope', '--model', model, '--adapter', adapter, '--data', at('scope.json')];
    const said = await succeed(...command, '--key-steps', '2', '--scorer-steps', '2');
    expect(said).toContain(`Written to ${adapter}`);
    expect(JSON.parse(await readFile(join(adapter, 'scope.json'), 'utf8'))).toHaveProperty('model');
    const bench = [
      'bench',
      '--model',
      model,
      '--adapter',
      adapter,
      '--data',
      at('scope.json'),
      '--limit',
      '1',
    ];
    expect(await succeed(...bench, '--scoped', '--max-new-tokens', '2', '--provider', 'cpu')).toContain(
      'learned',
    );
    const before = await readScopeFiles(adapter);
    const further = at('further-adapter');
    await writeTinyAdapter(further, model, 0.9);
    const more = ['train', 'scope', '--model', model, '--adapter', further, '--data', at('scope.json')];
    await succeed(...more, '--from', adapter, '--key-steps', '1', '--scorer-steps', '1');
    const after = await readScopeFiles(further);
    expect(after!.description.training).toMatchObject({ from: before!.fingerprint });
    expect(after!.projections).toEqual(before!.projections);
    // One step of either part leads nowhere far from where it began.
    for (const [name, { data }] of after!.weights)
      expect(largestDifference(data, before!.weights.get(name)!.data), name).toBeLessThan(0.02);
    await fail(/holds no scope of this model/, ...more, '--from', model);
    await fail(
      /adapter\.json is missing/,
      'train',
      'scope',
      '--adapter',
      at('nowhere'),
      '--data',
      at('scope.json'),
    );
  }, 180_000);
});

describe('emend models discover', () => {
  it('lists what lies in the cache of the hub', async () => {
    const snapshot = join(at('hub'), 'models--a--ears', 'snapshots', 'c'.repeat(40));
    await mkdir(snapshot, { recursive: true });
    await writeFile(join(snapshot, 'config.json'), '{"model_type":"whisper"}');
    await writeFile(join(snapshot, 'tokenizer.json'), '{}');
    const env = { ...process.env, XDG_DATA_HOME: base, HF_HUB_CACHE: at('hub'), HF_HOME: at('none') };
    const run = (...args: string[]) =>
      finished(spawn(process.execPath, [cli, 'models', 'discover', ...args], { env }));
    expect(JSON.parse((await run('--json')).out)).toMatchObject({
      more: 0,
      models: [{ name: 'a/ears', path: snapshot, state: 'unsupported' }],
    });
  });
});

describe('emend serve --api', () => {
  it('prints address and key once, answers, keeps the key for the next time, and ends at Ctrl+C', async () => {
    const serving = [
      'serve',
      '--api',
      '--model',
      model,
      '--port',
      '0',
      '--library',
      at('served.emend'),
      '--pictures',
      base,
    ];
    const start = async () => {
      const child = spawn(process.execPath, [cli, ...serving], {
        env: { ...process.env, XDG_DATA_HOME: at('data') },
      });
      const ended = finished(child);
      let out = '';
      child.stdout.on('data', (data: Buffer) => {
        out += data.toString();
      });
      while (!/^(Key: .*|emend-.*)\n/m.test(out) && child.exitCode === null)
        await new Promise((resolve) => setTimeout(resolve, 50));
      return { child, ended, url: /http:\S+/.exec(out)![0], key: /^emend-\S+$/m.exec(out)?.[0], out };
    };
    const first = await start();
    expect(first.out).toContain('model is served to other programs on this machine');
    const image_url = { url: picture };
    const content = [
      { type: 'image_url', image_url },
      { type: 'text', text: 'What is it?' },
    ];
    const reply = await fetch(`${first.url}/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${first.key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'model', messages: [{ role: 'user', content }], max_tokens: 3 }),
    });
    expect(await reply.json()).toMatchObject({
      object: 'chat.completion',
      emend: { edit: null, original: false },
    });
    first.child.kill('SIGINT');
    expect((await first.ended).code).toBe(0);

    const second = await start();
    expect(second.key).toBe(undefined);
    expect(second.out).toContain(`the one that ends in ${first.key!.slice(-4)}`);
    const listed = await fetch(`${second.url}/models`, { headers: { authorization: `Bearer ${first.key}` } });
    expect(listed.status).toBe(200);
    second.child.kill('SIGINT');
    expect((await second.ended).code).toBe(0);
  }, 180_000);
});
