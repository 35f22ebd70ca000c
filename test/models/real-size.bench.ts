/**
 * @file Models of real size, of random weights made here and removed again: peak memory by the system's own account (VmHWM of a process
 * that does nothing else), and speed. `npm run bench -- real-size [case] [provider]`; without a case the ones of 1.2 B, on the processor.
 */
import { fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { publishedWeights } from '../../electron/editors/visedit/losses.ts';
import { trainVisEdit } from '../../electron/editors/visedit/trainVisEdit.ts';
import { generate } from '../../electron/models/generation.ts';
import { memoryNeeds } from '../../electron/models/memory.ts';
import type { WeightForm } from '../../electron/models/packed/form.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import type { Provider } from '../../electron/tensor/session.ts';
import { adamDefaults } from '../../electron/training/optimizer.ts';
import { type Geometry, geometries, writeCheckpoint, writeRandomPacked } from '../support/realSize.ts';
import { noisePicture, tinyEdits } from '../support/tinyEdits.ts';

interface Case {
  readonly geometry: Geometry;
  readonly form: WeightForm;
  readonly work: 'answer' | 'train';
  /** edits of a training step */
  readonly edits?: number;
  /** that it may take on the processor, in GB */
  readonly most: number;
}

const cases: Readonly<Record<string, Case>> = {
  '1b-8bit': { geometry: '1b', form: '8bit', work: 'answer', most: 3 },
  '1b-train': { geometry: '1b', form: '8bit', work: 'train', edits: 2, most: 6 },
  '7b-8bit': { geometry: '7b', form: '8bit', work: 'answer', most: 12 },
  '7b-4bit': { geometry: '7b', form: '4bit', work: 'answer', most: 8 },
  '7b-train': { geometry: '7b', form: '4bit', work: 'train', edits: 1, most: 16 },
};

const [, wanted, provider = 'cpu', folderOfChild] = process.argv.slice(2) as [
  string,
  string | undefined,
  Provider | undefined,
  string | undefined,
];
if (folderOfChild !== undefined) await inChild(cases[wanted!]!, folderOfChild);
else {
  const chosen = wanted === undefined ? ['1b-8bit', '1b-train'] : [wanted];
  const unknown = chosen.find((name) => !cases[name]);
  if (unknown) throw new Error(`There is no case "${unknown}". There are: ${Object.keys(cases).join(', ')}.`);
  for (const name of chosen) await measure(name, cases[name]!);
}

async function measure(name: string, of: Case): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'emend-real-size-'));
  try {
    await writeCheckpoint(folder, of.geometry, of.form !== 'dense');
    if (of.form !== 'dense') await writeRandomPacked(folder, of.form);
    const run = fork(process.argv[1]!, ['real-size', name, provider, folder], { execArgv: [] });
    let most = { anonymous: 0, mapped: 0 };
    const watch = setInterval(() => {
      const now = memoryOf(run.pid!, folder);
      if (now.anonymous + now.mapped > most.anonymous + most.mapped) most = now;
    }, 250);
    const ended = await new Promise((resolve) => run.on('exit', (code, signal) => resolve(signal ?? code)));
    clearInterval(watch);
    // Mapped pages that were not touched for a while may have been taken back: with all of them in memory it is this much.
    const [own, files] = [most.anonymous / 1e9, most.mapped / 1e9];
    console.log(
      `  ${''.padEnd(10)} with all that is mapped in memory ${(own + files).toFixed(2)} GB at most: ${own.toFixed(2)} of its own, ${files.toFixed(2)} of files`,
    );
    if (ended !== 0) console.log(`  ${name}: ended with ${ended}`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What a process holds of its own, and what it has mapped of files in a folder, in bytes; nothing once it has ended. */
function memoryOf(pid: number, folder: string): { anonymous: number; mapped: number } {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const anonymous = 1024 * Number(/RssAnon:\s+(\d+) kB/.exec(status)?.[1] ?? 0);
    // A page that is mapped twice is in memory once.
    const parts = new Map<string, [number, number][]>();
    for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
      const found = /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+\s+(.+)$/.exec(line);
      const path = found?.[4];
      if (!found || !path?.startsWith(folder)) continue;
      const [from, to, offset] = found.slice(1, 4).map((text) => Number.parseInt(text, 16)) as [
        number,
        number,
        number,
      ];
      parts.set(path, [...(parts.get(path) ?? []), [offset, offset + to - from]]);
    }
    let mapped = 0;
    for (const ranges of parts.values()) {
      let end = 0;
      for (const [from, to] of ranges.sort((a, b) => a[0] - b[0])) {
        mapped += Math.max(0, to - Math.max(from, end));
        end = Math.max(end, to);
      }
    }
    return { anonymous, mapped };
  } catch {
    return { anonymous: 0, mapped: 0 };
  }
}

/** Peak memory of this process, in GB. */
function peak(): number {
  const found = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'));
  return (Number(found?.[1]) * 1024) / 1e9;
}

async function inChild({ geometry, form, work, edits, most }: Case, folder: string): Promise<void> {
  const packed = { folder: join(folder, 'packed'), limitBytes: 1e11 };
  const training = work === 'train';
  const layer = geometries[geometry].num_hidden_layers - 8;
  let from = performance.now();
  const lap = () => {
    const seconds = (performance.now() - from) / 1000;
    from = performance.now();
    return seconds;
  };
  const model = await VisionLanguageModel.open(folder, {
    ...{ providers: [provider], weights: form, packed, decoderLater: training },
    ...(training && { cuts: [layer] }),
  });
  const parameters = [...model.checkpoint.backbone.tensors().values()]
    .map((shape) => shape.reduce((a, b) => a * b, 1))
    .reduce((a, b) => a + b, 0);
  const told = [`opened in ${lap().toFixed(0)} s`];
  if (training) {
    const shape = { influenceMapper: true, attention: 'published' as const, heads: 8 };
    await trainVisEdit(
      model,
      tinyEdits(model),
      {
        ...{ layer, shape: { ...shape, middle: 1024, influenceMiddle: 1024 }, edits: edits!, rows: 704 },
        ...{ sampled: 24, raised: 'both', weights: { ...publishedWeights, influenceAttribution: 0 } },
        ...{ endToken: true, scale: 0, start: 'published', optimizer: adamDefaults(1e-4), steps: 1, seed: 1 },
      },
      {
        statePath: join(folder, 'state.safetensors'),
        keptBelow: join(folder, 'below'),
        onStep: ({ loss, gradientNorm }) =>
          told.push(`loss ${loss.toFixed(2)}, gradient ${gradientNorm.toPrecision(3)}`),
      },
    );
    told.push(
      `a step of ${edits} edits above layer ${layer} and what lies below it in ${lap().toFixed(0)} s`,
    );
  } else {
    const visual = await model.visualEmbeddings(noisePicture(model, 336, 1));
    told.push(`picture ${lap().toFixed(1)} s`);
    const encoded = model.prompts.encodePrompt({ prompt: 'What is it?', image: true });
    const prefill = await model.prefill(await model.lay(encoded, visual));
    told.push(`prompt of ${prefill.input.rows} rows ${lap().toFixed(1)} s`);
    const { ids } = await generate(model, prefill, { maxNewTokens: 16 });
    told.push(`${ids.length} tokens, ${((1000 * lap()) / Math.max(1, ids.length)).toFixed(0)} ms each`);
  }
  const need = memoryNeeds(model.checkpoint, model.images.rows.most).find((each) => each.form === form)!;
  await model.dispose();
  const held = peak();
  console.log(
    `  ${wanted!.padEnd(10)} ${(parameters / 1e9).toFixed(2)} B parameters, ${form}, ${work} on ${model.provider}: peak ${held.toFixed(2)} GB ` +
      `(at most ${most} wanted${held > most ? ', MISSED' : ''}; answering was foretold ${(need.total / 1e9).toFixed(2)}); ${told.join(', ')}`,
  );
}
