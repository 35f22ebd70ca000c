/** @file A training as people run it: recorded, stopped and gone on with, validated on what it is not trained on, its best kept. */
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { readAdapter } from '../../electron/editors/registry.ts';
import { editSourceFromFile } from '../../electron/evaluation/editSource.ts';
import { readTrainingCurve } from '../../electron/evaluation/trainingCurve.ts';
import {
  finishTraining,
  readTrainingRun,
  recordFailure,
  runTraining,
  type TrainingHooks,
  type TrainingRequest,
  usualProviders,
} from '../../electron/evaluation/trainingRun.ts';
import { fingerprint } from '../../electron/models/checkpoint.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { tinySettings, tinyTraining } from '../support/tinyEdits.ts';

let base: string;
let request: TrainingRequest;
const at = (...names: string[]) => join(base, ...names);
const hooks = (changes: Partial<TrainingHooks> = {}): TrainingHooks => ({
  signal: new AbortController().signal,
  packed: { folder: at('packed'), limitBytes: 1e9 },
  ...changes,
});

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-training-'));
  await writeTinyCheckpoint(at('model'));
  for (const [name, r] of Object.entries({ a: 40, b: 120, c: 220 }))
    await sharp({ create: { width: 28, height: 28, channels: 3, background: { r, g: 90, b: 255 - r } } })
      .png()
      .toFile(at(`${name}.png`));
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'b.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'c.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
  };
  const others = ['a red apple', 'the train', 'a small cat'].map((alt) => ({
    ...record,
    alt,
    image: 'c.png',
  }));
  await writeFile(at('data.json'), JSON.stringify([record, ...others]));
  const { edits, optimizer, seed } = tinyTraining;
  request = {
    ...{ editor: 'VisEdit', name: 'a tiny one', model: at('model'), data: at('data.json'), suffix: '' },
    ...{ extended: false, weights: 'dense', providers: ['cpu'], layerwise: false },
    validation: { edits: 1, every: 2 },
    settings: tinySettings,
    options: { edits, optimizer, seed, steps: 4 },
  };
});
afterAll(() => rm(base, { recursive: true, force: true }));

test('a stopped training goes on where it was, keeps its best weights, and makes an adapter that says what it was made with', async () => {
  const points: number[] = [];
  await runTraining(
    request,
    at('whole'),
    at('whole', 'adapter'),
    hooks({ onPoint: ({ step }) => points.push(step) }),
  );
  expect(points).toEqual([1, 2, 3, 4]);
  const whole = await readTrainingCurve(at('whole'));
  expect(whole.points.map(({ step }) => step)).toEqual([1, 2, 3, 4]);
  expect(whole.validations.map(({ step }) => step)).toEqual([2, 4]);
  // Of equally good weights the first are the best.
  const top = Math.max(...whole.validations.map(({ exactMatch }) => exactMatch));
  expect((await readTrainingRun(at('whole'))).progress.best).toEqual(
    whole.validations.find(({ exactMatch }) => exactMatch === top),
  );
  expect(
    whole.points.every(({ loss, terms }) => Number.isFinite(loss) && Number.isFinite(terms['reliability'])),
  ).toBe(true);

  // With what the frozen model makes of the pictures that are trained on kept on disk it is the same.
  const pictureCache = at('pictures');
  const stop = new AbortController();
  const stopped = runTraining(
    request,
    at('parts'),
    at('parts', 'adapter'),
    hooks({ pictureCache, signal: stop.signal, onPoint: ({ step }) => step === 3 && stop.abort() }),
  );
  await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
  expect((await readTrainingRun(at('parts'))).progress).toMatchObject({ step: 3, finished: false });
  // What it has so far can be kept, as it stands.
  const seen = vi.spyOn(VisionLanguageModel.prototype, 'visualEmbeddingsOf');
  await finishTraining(at('parts'), at('kept'), hooks({ pictureCache }));
  // Its router is calibrated on pictures that are known.
  expect(seen).not.toHaveBeenCalled();
  seen.mockRestore();
  await runTraining(request, at('parts'), at('parts', 'adapter'), hooks({ pictureCache }));
  const kept = await readdir(pictureCache, { recursive: true });
  expect(kept.filter((name) => /[0-9a-f]{64}$/.test(name))).toHaveLength(2);
  const parts = await readTrainingCurve(at('parts'));
  const lasting = (point: (typeof whole.points)[number]) => ({ ...point, editsPerSecond: 0 });
  expect(parts.points.map(lasting)).toEqual(whole.points.map(lasting));
  expect(parts.validations).toEqual(whole.validations);
  const weights = (run: string) => readFile(at(run, 'adapter', 'adapter.safetensors'));
  expect((await weights('parts')).equals(await weights('whole'))).toBe(true);

  const checkpoint = await openCheckpoint(at('model'));
  const own = await fingerprint(checkpoint);
  for (const folder of [at('whole', 'adapter'), at('kept')])
    expect(await readAdapter(folder, checkpoint, own)).toMatchObject({
      name: 'a tiny one',
      cuts: [tinySettings.layer],
    });
  const said = JSON.parse(await readFile(at('whole', 'adapter', 'adapter.json'), 'utf8'));
  expect(said.training).toMatchObject({
    request: { editor: 'VisEdit', model: 'model', data: 'data.json', options: { steps: 4 } },
    finished: false,
    best: { step: expect.any(Number), exactMatch: expect.any(Number) },
  });
  expect((await readTrainingRun(at('whole'))).progress.finished).toBe(true);
}, 240_000);

test('training begins behind the edits held out, each with its own picture', async () => {
  const model = await VisionLanguageModel.open(at('model'), { providers: ['cpu'] });
  try {
    const options = { images: undefined, seed: 1, extended: false, suffix: '', without: 1 };
    const source = await editSourceFromFile(at('data.json'), model, options);
    const edits = await source.batch(0, 3);
    expect(edits.map(({ target }) => target).sort()).toEqual(['a red apple', 'a small cat', 'the train']);
    const own = await model.pixelsOf(await readFile(at('c.png')));
    for (const { pixels } of edits) expect(pixels).toEqual(own);
  } finally {
    await model.dispose();
  }
});

test('of the edits held out none is trained on, and where that leaves none it is said', async () => {
  const alone = { ...request, validation: { edits: 4, every: 2 } };
  await expect(runTraining(alone, at('none'), at('out'), hooks())).rejects.toMatchObject({
    code: 'invalid-input',
    message: expect.stringContaining('none is left to train on'),
  });
  expect(existsSync(at('none'))).toBe(false);
});

test('another training does not go on in the same folder, and what cannot be trained is told', async () => {
  const pictureCache = at('no-pictures');
  const asked = { ...request, pictureCacheGb: 0, validation: null };
  await runTraining(asked, at('same'), at('out'), hooks({ pictureCache }));
  expect(existsSync(pictureCache)).toBe(false);
  const other = { ...request, validation: null, options: { ...request.options, seed: 99, steps: 5 } };
  await expect(runTraining(other, at('same'), at('out'), hooks())).rejects.toMatchObject({
    code: 'conflict',
  });
  expect((await readTrainingRun(at('same'))).request.options.seed).toBe(request.options.seed);
  // Why one ended is kept until it goes on.
  await recordFailure(at('same'), 'the lights went out');
  expect((await readTrainingRun(at('same'))).progress.failed).toBe('the lights went out');
  const longer = { ...request, validation: null, options: { ...request.options, steps: 5 } };
  await runTraining(longer, at('same'), at('out'), hooks());
  expect((await readTrainingRun(at('same'))).progress).toMatchObject({ step: 5, failed: null });
  await expect(
    runTraining({ ...request, editor: 'IKE' }, at('ike'), at('out'), hooks()),
  ).rejects.toMatchObject({
    code: 'unsupported',
  });
}, 240_000);

test('where none is named it trains on cuda or the processor, whatever the platform would take first', async () => {
  expect(usualProviders(['dml', 'coreml', 'webgpu', 'cpu'])).toEqual(['cpu']);
  expect(usualProviders(['webgpu', 'cpu', 'cuda'])).toEqual(['cuda', 'cpu']);
  expect(usualProviders()).toContain('cpu');
  const opened = vi.spyOn(VisionLanguageModel, 'open');
  const stopped = hooks({ signal: AbortSignal.abort() });
  const run = runTraining({ ...request, providers: [] }, at('anywhere'), at('out'), stopped);
  await expect(run).rejects.toMatchObject({ code: 'cancelled' });
  expect(opened).toHaveBeenCalled();
  for (const [, options] of opened.mock.calls) expect(options?.providers).toEqual(usualProviders());
  opened.mockRestore();
}, 120_000);

test('an editor that is not trained one layer at a time is trained on packed weights, and says so', async () => {
  const mend = {
    ...({ ...request, editor: 'MEND', weights: '4bit', validation: null } as const),
    settings: { lastLayers: 1, rank: 4 },
    options: { ...request.options, steps: 1 },
  };
  await expect(
    runTraining({ ...mend, layerwise: true }, at('layerwise'), at('out'), hooks()),
  ).rejects.toMatchObject({ code: 'unsupported', message: expect.stringContaining('one layer at a time') });
  await runTraining(mend, at('packed-mend'), at('mend-adapter'), hooks());
  const checkpoint = await openCheckpoint(at('model'));
  const adapter = await readAdapter(at('mend-adapter'), checkpoint, await fingerprint(checkpoint));
  expect(adapter).toMatchObject({ weights: '4bit', editor: { name: 'MEND' } });
}, 240_000);
