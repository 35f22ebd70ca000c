/** @file The application answers from its library whatever the engine does, and keeps the engine in step with it. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { Application } from '../../electron/api/application.ts';
import { wireError } from '../../electron/api/router.ts';
import { commitEdit } from '../../electron/library/edits.ts';
import { openLibrary } from '../../electron/library/library.ts';
import {
  deadEngine,
  loggingEngine,
  makeApplication,
  modelFolder,
  pngBase64,
  temporaryFolder,
} from './support.ts';

async function draft(application: Application, shade = 1, prompt = 'what animal is it?') {
  const picture = await application.call('pictures.add', { base64: await pngBase64(shade) });
  return application.call('edits.create', { picture: picture.id, prompt, target: 'fox', before: 'dog' });
}

/** A resources folder with a demo model, samples and standing probes. */
async function makeResources(): Promise<string> {
  const resources = temporaryFolder();
  modelFolder(resources, 'demo-model');
  mkdirSync(join(resources, 'demo-adapter'));
  writeFileSync(join(resources, 'a.png'), Buffer.from(await pngBase64(200), 'base64'));
  const samples = [{ file: 'a.png', title: 'A', prompts: ['what is it?'], correction: null }];
  const probes = [
    { kind: 'image-locality', picture: 'a.png', prompt: 'how many?' },
    { kind: 'text-locality', picture: null, prompt: 'capital of France?' },
  ];
  writeFileSync(join(resources, 'samples.json'), JSON.stringify(samples));
  writeFileSync(
    join(resources, 'standing-probes.json'),
    JSON.stringify({ probes, samePicture: ['what colour?'] }),
  );
  return resources;
}

test('without an engine the library answers, and what needs the engine says why it cannot', async () => {
  const application = makeApplication(deadEngine, await makeResources());
  const changed: number[][] = [];
  application.on('library.changed', ({ edits }) => changed.push(edits));
  const edit = await draft(application);
  await application.call('probes.add', {
    edit: edit.id,
    kind: 'text-generality',
    picture: null,
    prompt: 'which?',
  });
  const shown = await application.call('edits.show', { id: edit.id });
  expect(shown.probes.map((probe) => probe.kind)).toEqual(['reliability', 'text-generality']);
  expect(shown.history.map((entry) => entry.what)).toEqual(['created', 'probe-added']);
  expect(changed).toEqual([[edit.id], [edit.id]]);
  expect(await application.call('app.status', {})).toMatchObject({
    engine: { state: 'failed', message: 'The engine ended with exit code 1.' },
    model: null,
    counts: { draft: 1 },
  });
  for (const call of [
    application.call('answers.ask', { picture: null, prompt: 'q', edits: 'none' }),
    application.call('edits.preview', { id: edit.id }),
    application.call('checks.run', { edit: edit.id }),
  ]) {
    expect(await call.catch(wireError)).toMatchObject({ code: 'engine' });
  }
  expect((await application.call('edits.show', { id: edit.id })).history).toHaveLength(2);
});

test('a wrong edit, picture or path is told before the engine is waited for', async () => {
  const application = makeApplication(deadEngine);
  const code = async (call: Promise<unknown>) => wireError(await call.catch((error: unknown) => error)).code;
  expect(await code(application.call('checks.run', { edit: 9 }))).toBe('not-found');
  expect(await code(application.call('edits.preview', { id: 9 }))).toBe('not-found');
  const ask = { picture: 'a'.repeat(64), prompt: 'q', edits: 'none' } as const;
  expect(await code(application.call('answers.ask', ask))).toBe('not-found');
  expect(await code(application.call('models.open', { path: '/no/such/model' }))).toBe('not-found');
  const file = join(temporaryFolder(), 'file');
  writeFileSync(file, '');
  expect(await code(application.call('models.inspect', { path: file }))).toBe('invalid-input');
});

test('samples and standing probes come from the resources, once', async () => {
  const resources = await makeResources();
  const application = makeApplication(deadEngine, resources);
  const [sample, ...more] = await application.call('pictures.samples', {});
  expect(more).toEqual([]);
  expect(sample).toMatchObject({ title: 'A', prompts: ['what is it?'], picture: { width: 8, height: 6 } });
  const standing = await application.call('probes.standing', {});
  expect(standing.map(({ kind, picture, prompt }) => [kind, picture, prompt])).toEqual([
    ['image-locality', sample!.picture.id, 'how many?'],
    ['text-locality', null, 'capital of France?'],
    ['same-picture', null, 'what colour?'],
  ]);
  const { path } = (await application.call('app.status', {})).library;
  await application.close();
  const again = makeApplication(deadEngine, resources, path);
  expect(await again.call('probes.standing', {})).toEqual(standing);
  expect(await makeApplication(deadEngine).call('pictures.samples', {})).toEqual([]);
});

test('resources that lead outside their folder are refused', async () => {
  const resources = temporaryFolder();
  const samples = [{ file: '../../etc/hostname', title: 'A', prompts: [], correction: null }];
  writeFileSync(join(resources, 'samples.json'), JSON.stringify(samples));
  const error = await makeApplication(deadEngine, resources).call('pictures.samples', {}).catch(wireError);
  expect(error).toMatchObject({ code: 'invalid-input' });
});

test('at start the demo model is opened with its adapter, later the model used last', async () => {
  const resources = await makeResources();
  const first = loggingEngine();
  const application = makeApplication(first.client, resources);
  await expect.poll(async () => (await application.call('app.status', {})).model?.name).toBe('demo-model');
  const status = await application.call('app.status', {});
  expect(status.model?.adapter?.path).toBe(join(resources, 'demo-adapter'));
  expect(status.engine).toMatchObject({ provider: 'cpu', refusals: [{ provider: 'cuda' }] });
  const mine = modelFolder(temporaryFolder(), 'mine');
  const adapter = modelFolder(temporaryFolder(), 'my-adapter');
  await application.call('models.open', { path: mine, adapter });
  await application.close();

  const second = loggingEngine();
  const again = makeApplication(second.client, resources, status.library.path);
  await expect.poll(() => second.log[0]).toMatchObject({ name: 'open', input: { path: mine, adapter } });
  expect((await again.call('models.recent', {})).map((model) => model.name)).toEqual(['mine', 'demo-model']);
});

test('a model that is gone gives way to the demo model, and that is told', async () => {
  const resources = temporaryFolder();
  const engine = loggingEngine();
  const application = makeApplication(engine.client, resources);
  const gone = modelFolder(temporaryFolder(), 'gone');
  await application.call('models.open', { path: gone });
  const { path } = (await application.call('app.status', {})).library;
  await application.close();
  modelFolder(resources, 'demo-model');
  rmSync(gone, { recursive: true });
  const again = makeApplication(loggingEngine().client, resources, path);
  await expect.poll(async () => (await again.call('app.status', {})).model?.name).toBe('demo-model');
  expect((await again.call('app.status', {})).engine.message).toContain(gone);
});

test('committed edits act in the engine: after a commit, after retiring, and again after a restart', async () => {
  const engine = loggingEngine();
  const application = makeApplication(engine.client, await makeResources());
  await expect.poll(async () => (await application.call('app.status', {})).model?.name).toBe('demo-model');
  await expect.poll(() => engine.log.at(-1)?.name).toBe('activate');
  const signed = () =>
    engine.log.flatMap(({ name, input }) =>
      name === 'sign' ? (input as { edits: Array<{ id: number }> }).edits.map(({ id }) => id) : [],
    );
  const one = await draft(application, 1);
  const two = await draft(application, 2);
  await application.call('edits.commit', { id: one.id, reason: 'seen' });
  await expect.poll(engine.acting).toEqual([one.id]);
  await application.call('edits.commit', { id: two.id, reason: 'seen' });
  await expect.poll(engine.acting).toEqual([one.id, two.id]);
  await application.call('edits.retire', { id: one.id });
  await expect.poll(engine.acting).toEqual([two.id]);
  // what it computed is kept, and spares computing it again
  expect(signed()).toEqual([one.id, two.id]);

  engine.log.length = 0;
  engine.die();
  const ask = application.call('answers.ask', { picture: null, prompt: 'q', edits: 'committed' });
  expect(await ask.catch(wireError)).toMatchObject({
    code: 'engine',
    message: expect.stringContaining('killed'),
  });
  engine.comeBack();
  await expect.poll(engine.acting).toEqual([two.id]);
  expect(engine.log.map((entry) => entry.name).slice(0, 2)).toEqual(['open', 'activate']);
  expect(signed()).toEqual([]);
});

test('an edit retired while the engine takes it up does not act in what is asked then', async () => {
  const engine = loggingEngine();
  const application = makeApplication(engine.client, await makeResources());
  await expect.poll(() => engine.log.at(-1)?.name).toBe('activate');
  const edit = await draft(application);
  const release = engine.holdActivations();
  engine.log.length = 0;
  await application.call('edits.commit', { id: edit.id, reason: 'seen' });
  await expect.poll(() => engine.log.at(-1)?.name).toBe('activate');
  await application.call('edits.retire', { id: edit.id });
  const ask = application.call('answers.ask', { picture: null, prompt: 'q', edits: 'committed' });
  release();
  await ask.catch(wireError);
  expect(engine.log.at(-1)?.name).toBe('ask');
  expect(engine.acting()).toEqual([]);
});

test('what many committed edits act by is computed together and written in one transaction', async () => {
  const resources = await makeResources();
  const path = join(temporaryFolder(), 'many.emend');
  const first = makeApplication(loggingEngine().client, resources, path);
  await expect.poll(async () => (await first.call('app.status', {})).model?.name).toBe('demo-model');
  const ids: number[] = [];
  for (let count = 0; count < 8; count++) ids.push((await draft(first, count, `What is ${count}?`)).id);
  await first.close();
  // committed where there was no engine to compute anything
  const library = openLibrary(path);
  for (const id of ids) commitEdit(library, id, { reason: 'seen' });
  library.close();

  const engine = loggingEngine();
  const release = engine.holdActivations();
  makeApplication(engine.client, resources, path);
  await expect.poll(() => engine.log.at(-1)?.name).toBe('activate');
  const before = transactions(path);
  release();
  await expect.poll(engine.acting).toEqual(ids);
  await expect.poll(() => engine.log.at(-1)?.name).toBe('activate');
  const signed = engine.log.filter(({ name }) => name === 'sign').map(({ input }) => input);
  expect(signed).toEqual([{ edits: ids.map((id) => expect.objectContaining({ id })), influence: false }]);
  // one with signals and descriptions, and one for where the edits lie among those that are kept
  expect(transactions(path) - before).toBeLessThanOrEqual(2);
});

/** How many transactions SQLite's log of a library holds: frames that say how large the file is after them end one. */
function transactions(library: string): number {
  const log = readFileSync(`${library}-wal`);
  const frame = 24 + log.readUInt32BE(8);
  let count = 0;
  for (let at = 32; at + frame <= log.length; at += frame) {
    const current = log.compare(log, 16, 24, at + 8, at + 16) === 0;
    if (current && log.readUInt32BE(at + 4) > 0) count += 1;
  }
  return count;
}

test('a signal belongs to the form of prompts the model was opened with, also while the setting is ahead', async () => {
  const engine = loggingEngine();
  const application = makeApplication(engine.client, await makeResources());
  await expect.poll(() => engine.log.at(-1)?.name).toBe('activate');
  const edit = await draft(application);
  await application.call('edits.commit', { id: edit.id, reason: 'seen' });
  await expect.poll(engine.acting).toEqual([edit.id]);
  const release = engine.holdOpenings();
  engine.log.length = 0;
  await application.call('settings.set', { promptTemplate: 'chat' });
  await expect.poll(() => engine.log).toMatchObject([{ name: 'open', input: { template: 'chat' } }]);
  await delay(50);
  expect(engine.log).toHaveLength(1);
  release();
  // what was computed in the plain form is of no use in the other
  await expect
    .poll(() => engine.log.find(({ name }) => name === 'sign'))
    .toMatchObject({ input: { edits: [{ id: edit.id, signal: null }] } });
});

test('a job that waits for the model can be stopped', async () => {
  const engine = loggingEngine();
  const application = makeApplication(engine.client, await makeResources());
  await expect.poll(async () => (await application.call('app.status', {})).model?.name).toBe('demo-model');
  const release = engine.holdOpenings();
  await application.call('settings.set', { providers: ['cpu'] });
  const ask = application
    .call('answers.ask', { picture: null, prompt: 'q', edits: 'none' }, { job: 'a' })
    .catch(wireError);
  await delay(20);
  await application.call('jobs.cancel', { job: 'a' });
  expect(await ask).toMatchObject({ code: 'cancelled' });
  release();
});

test('a model whose usual adapter no longer fits opens without it, and that is told', async () => {
  const engine = loggingEngine();
  const application = makeApplication(engine.client, await makeResources());
  const folder = temporaryFolder();
  const [path, adapter] = [modelFolder(folder, 'mine'), modelFolder(folder, 'adapter')];
  await application.call('models.open', { path, adapter });
  engine.refuseAdapters();
  expect(await application.call('models.open', { path, adapter }).catch(wireError)).toMatchObject({
    code: 'invalid-input',
  });
  expect(await application.call('models.open', { path })).toMatchObject({ name: 'mine', adapter: null });
  expect((await application.call('app.status', {})).engine.message).toContain('opened without');
  await application.call('models.open', { path, adapter: null });
  expect((await application.call('app.status', {})).engine.message).toBe('');
});

test('an editor that needs no training is opened again with its settings and scope, and let go for an adapter', async () => {
  const engine = loggingEngine();
  const application = makeApplication(engine.client, await makeResources());
  const folder = temporaryFolder();
  const [path, adapter] = [modelFolder(folder, 'mine'), modelFolder(folder, 'adapter')];
  const opened = () => engine.log.findLast(({ name }) => name === 'open')!.input;
  await application.call('models.open', { path, adapter });
  const editor = { editor: 'IKE', settings: { demonstrations: 2 } };
  await application.call('models.open', { path, editor, scope: { form: 'everywhere' } });
  expect(opened()).toMatchObject({ path, adapter: null, editor, scope: 'everywhere' });
  await application.call('models.open', { path });
  expect(opened()).toMatchObject({ path, adapter: null, editor, scope: 'everywhere' });
  engine.die();
  engine.comeBack();
  await expect.poll(() => engine.log.filter(({ name }) => name === 'open').length).toBeGreaterThan(3);
  expect(opened()).toMatchObject({ path, adapter: null, editor, scope: 'everywhere' });
  await application.call('models.open', { path, adapter });
  await application.call('models.open', { path });
  expect(opened()).toMatchObject({ path, adapter });
  expect(opened()).not.toMatchObject({ editor });
  const both = application.call('models.open', { path, adapter, editor }).catch(wireError);
  expect(await both).toMatchObject({ code: 'invalid-input' });
});

test('lists are told to read again when settings or the model change how edits stand', async () => {
  const application = makeApplication(loggingEngine().client, await makeResources());
  await expect.poll(async () => (await application.call('app.status', {})).model?.name).toBe('demo-model');
  const changed: number[][] = [];
  application.on('library.changed', ({ edits }) => changed.push(edits));
  await application.call('settings.set', { maxNewTokens: 7 });
  expect(changed).toEqual([[]]);
  await application.call('models.open', { path: modelFolder(temporaryFolder(), 'mine') });
  expect(changed).toEqual([[], []]);
  // the form of prompts changes twice: as a setting, and when the model is open in it
  await application.call('settings.set', { promptTemplate: 'chat' });
  await expect.poll(() => changed).toHaveLength(4);
});

test('an edit made for one model does not act in another', async () => {
  const engine = loggingEngine();
  const application = makeApplication(engine.client, await makeResources());
  await expect.poll(async () => (await application.call('app.status', {})).model?.name).toBe('demo-model');
  const edit = await draft(application);
  await application.call('edits.commit', { id: edit.id, reason: 'seen' });
  const adapter = modelFolder(temporaryFolder(), 'my-adapter');
  await application.call('models.open', { path: modelFolder(temporaryFolder(), 'mine'), adapter });
  await expect.poll(() => engine.log.at(-1)?.name).toBe('activate');
  expect(engine.acting()).toEqual([]);
});

test('settings that are part of how a model is opened open it again', async () => {
  const engine = loggingEngine();
  const application = makeApplication(engine.client, await makeResources());
  await expect.poll(() => engine.log.map((entry) => entry.name)).toEqual(['open', 'activate']);
  await application.call('settings.set', { theme: 'dark' });
  await application.call('settings.set', { providers: ['webgpu', 'cpu'] });
  await expect.poll(() => engine.log.filter((entry) => entry.name === 'open')).toHaveLength(2);
  expect(engine.log.findLast((entry) => entry.name === 'open')).toMatchObject({
    input: { providers: ['webgpu', 'cpu'], adapter: expect.stringContaining('demo-adapter') },
  });
  expect(await application.call('settings.get', {})).toMatchObject({
    theme: 'dark',
    providers: ['webgpu', 'cpu'],
  });
});

test('a model a person opens while the engine restarts is opened, not the one before; that one comes back when it is given up', async () => {
  const engine = loggingEngine();
  const application = makeApplication(engine.client, await makeResources());
  const opened = async () => (await application.call('app.status', {})).model?.name;
  await expect.poll(opened).toBe('demo-model');
  const other = modelFolder(temporaryFolder(), 'mine');
  const opens = () =>
    engine.log.filter(({ name }) => name === 'open').map(({ input }) => (input as { path: string }).path);

  engine.die();
  const given = application.dispatch('models.open', { path: other }, { job: 'opening' }).catch(wireError);
  await expect.poll(opens).toHaveLength(2);
  await application.call('jobs.cancel', { job: 'opening' });
  engine.comeBack();
  expect(await given).toMatchObject({ code: 'cancelled' });
  await expect.poll(opens).toHaveLength(3);
  expect(opens()[2]).toContain('demo-model');
  await expect.poll(opened).toBe('demo-model');

  engine.die();
  const opening = application.call('models.open', { path: other });
  await expect.poll(opens).toHaveLength(4);
  const release = engine.holdOpenings();
  engine.comeBack();
  // Time in which another opening would have taken its place.
  await delay(200);
  release();
  expect(await opening).toMatchObject({ name: 'mine' });
  expect(opens()).toHaveLength(4);
  expect(await opened()).toBe('mine');
});

test('a model that ends the engine each time it is opened is not tried for ever', async () => {
  const engine = loggingEngine();
  engine.endWhenOpening();
  const application = makeApplication(engine.client, await makeResources());
  for (let restart = 0; restart < 5; restart += 1) {
    await application.call('answers.ask', { picture: null, prompt: 'q', edits: 'none' }).catch(wireError);
    engine.die();
    engine.comeBack();
  }
  const ask = application.call('answers.ask', { picture: null, prompt: 'q', edits: 'none' });
  expect(await ask.catch(wireError)).toMatchObject({
    code: 'engine',
    message: expect.stringContaining('memory'),
  });
  expect(engine.log.map((entry) => entry.name)).toEqual(['open', 'open']);
});

test.each(['checks.run', 'edits.preview'] as const)(
  'cancelling %s leaves the library as it was',
  async (name) => {
    const engine = loggingEngine();
    const application = makeApplication(engine.client, await makeResources());
    await expect.poll(async () => (await application.call('app.status', {})).model?.name).toBe('demo-model');
    const edit = await draft(application);
    const progress: unknown[] = [];
    application.on('job.progress', (event) => progress.push(event));
    const before = await application.call('edits.show', { id: edit.id });
    const input = name === 'checks.run' ? { edit: edit.id } : { id: edit.id };
    const running = application.dispatch(name, input, { job: 'long' }).catch(wireError);
    await expect.poll(() => engine.log.at(-1)?.name).toBe(name === 'checks.run' ? 'answer' : 'preview');
    const asked = { id: edit.id, prompt: edit.prompt, target: 'fox', signal: null };
    if (name === 'checks.run') {
      expect(engine.log).toContainEqual({
        name: 'sign',
        input: { edits: [expect.objectContaining(asked)], influence: true },
      });
      const total = 5; // itself, two standing, its picture with a standing question, its prompt on the standing picture
      const described = engine.log.find((entry) => entry.name === 'describe');
      expect(described?.input).toMatchObject({ inputs: { length: total } });
      expect(progress[0]).toEqual({ job: 'long', stage: 'Checking', done: 0, total, unit: 'inputs' });
    } else expect(engine.log.at(-1)?.input).toMatchObject({ edit: asked });
    await application.call('jobs.cancel', { job: 'long' });
    expect(await running).toMatchObject({ code: 'cancelled' });
    expect(await application.call('edits.show', { id: edit.id })).toEqual(before);
  },
);
