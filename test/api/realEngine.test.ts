/** @file Checks and commits of sets, health, conflicts and replacing, over the contract, with a real engine on a tiny model. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Application, createApplication } from '../../electron/api/application.ts';
import type { CallInput, CallOutput, EventPayload, ProbeResult } from '../../electron/api/contract.ts';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import type { EngineOperations, OperationName } from '../../electron/engine/protocol.ts';
import { type Engine, type EngineProcess, startEngine } from '../../electron/engine/supervisor.ts';
import { writeTinyAdapter } from '../evaluation/tinyAdapter.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-real-'));
let engine: Engine;
let application: Application;
let running: EngineProcess;
/** what the engine was asked, and what is done instead of asking it */
let asked: Array<{ name: OperationName; input: unknown }> = [];
let instead: ((name: OperationName) => (() => void) | null) | null = null;
const pictures: string[] = [];

function launch(): EngineProcess {
  const forked = forkEngine();
  running = forked;
  return {
    ...forked,
    send: (message) => {
      if (message.kind === 'call') {
        const other = instead?.(message.name as OperationName);
        if (other) return other();
        asked.push(message as never);
      }
      forked.send(message);
    },
  };
}

const call: Application['call'] = (name, input, options) => application.call(name, input, options);
/** Waits until an engine that ended is there again. */
const back = () =>
  expect
    .poll(async () => (await call('app.status', {})).engine.state, { timeout: 60_000 })
    .toMatch(/ready|busy/);
const inputs = <N extends OperationName>(wanted: N) =>
  asked.filter(({ name }) => name === wanted).map(({ input }) => input as EngineOperations[N]['input']);

async function draft(picture: number, prompt: string, target: string): Promise<number> {
  const probes = [{ kind: 'text-generality' as const, picture: null, prompt: `Tell me: ${prompt}` }];
  return (await call('edits.create', { picture: pictures[picture]!, prompt, target, probes })).id;
}
const reliability = (check: CallOutput<'checks.run'>): ProbeResult =>
  check.results.find(({ probe }) => probe.kind === 'reliability')!;

beforeAll(async () => {
  const [model, adapter] = [join(folder, 'model'), join(folder, 'adapter')];
  await writeTinyCheckpoint(model);
  // Everything asked of the same picture is near; another picture is not.
  await writeTinyAdapter(adapter, model, 0.97);
  engine = startEngine({ launch, patience: { pause: 20 } });
  application = createApplication({
    ...{ libraryPath: join(folder, 'real.emend'), resources: folder, version: '0', startModel: 'none' },
    engine,
  });
  await call('settings.set', { maxNewTokens: 6 });
  await call('models.open', { path: model, adapter });
  for (const shade of [40, 90, 170]) {
    const pixels = Uint8Array.from({ length: 40 * 32 * 3 }, (_, i) => (i * shade) % 251);
    const png = await sharp(pixels, { raw: { width: 40, height: 32, channels: 3 } })
      .png()
      .toBuffer();
    pictures.push((await call('pictures.add', { base64: png.toString('base64') })).id);
  }
}, 120_000);

afterAll(async () => {
  await application?.close();
  await engine?.stop();
  rmSync(folder, { recursive: true, force: true });
});

test('a set is checked edit by edit, told as it goes, with those that disturb each other; committed, and found in health', async () => {
  const first = await draft(0, 'What is the animal?', 'a small cat');
  const same = await draft(0, 'Which animal is it?', 'the train');
  const third = await draft(0, 'What animal do you see?', 'zebra crossing with apple');
  const gone = await draft(1, 'Which fruit?', 'apple');
  await call('edits.retire', { id: gone });
  const told: Array<EventPayload<'check.finished'>['result']> = [];
  const quiet = application.on('check.finished', ({ result }) => told.push(result));
  const live = [first, same, third];
  const set = { edits: [...live, gone] };
  const found = await call('checks.runSet', { select: set });
  quiet();
  expect(found.results).toEqual(told);
  expect(found.results.map(({ edit }) => edit).sort()).toEqual([...set.edits].sort());
  expect(found.results.find(({ edit }) => edit === gone)).toMatchObject({
    verdict: null,
    error: expect.stringMatching(/retired/),
  });
  expect(found.results[0]!.verdict).not.toBeNull();
  for (const pair of found.pairs) expect(live).toEqual(expect.arrayContaining([pair.edit, pair.disturbs]));

  const without = await call('edits.commitSet', { select: set });
  const passing = found.results.filter(({ verdict }) => verdict === 'passes').map(({ edit }) => edit);
  expect(without.committed.filter((edit) => !passing.includes(edit))).toEqual([]);
  expect(without.refused.map(({ edit }) => edit)).toContain(gone);
  const rest = live.filter((edit) => !without.committed.includes(edit));
  await call('edits.commitSet', { select: { edits: rest }, reason: 'for the test' });
  const committed = await call('edits.find', { filter: { status: ['committed'] } });
  expect(committed.rows.map(({ id }) => id).sort()).toEqual(live);

  const health = await call('checks.health', {});
  expect(health.results.map(({ edit }) => edit).sort()).toEqual(live);
  for (const { passed, total } of health.results) expect([passed <= total, total]).toEqual([true, 2]);
  const list = await call('checks.healthList', {});
  expect(list.results.map(({ edit }) => edit).sort()).toEqual(live);
  expect(list.counts.holds + list.counts['needs-work'] + list.counts['not-needed']).toBe(3);
}, 120_000);

test('a committed edit that stands in the way is told at preview, and an edit checked in its place is not measured against it', async () => {
  const old = await draft(1, 'What is above?', 'the sun');
  await call('edits.commit', { id: old, reason: 'for the test' });
  const anew = await draft(1, 'What is above?', 'the moon');
  const { conflict } = await call('edits.preview', { id: anew });
  expect(conflict).toEqual({ edit: old, target: 'the sun' });

  const beside = await call('checks.run', { edit: anew });
  const instead = await call('checks.run', { edit: anew, supersede: old });
  expect(reliability(beside).acting.before).toBe(old);
  // Both are exactly as near: the older one acts, unless it is to go.
  expect(reliability(beside).acting.after).toBe(old);
  expect(reliability(instead).acting).toEqual({ before: old, after: anew });
  expect(instead.supersede).toBe(old);
  expect(instead.results.filter(({ owner }) => owner === old)).toEqual([]);
  await expect(call('edits.commit', { id: anew, reason: 'beside it' })).rejects.toMatchObject({
    code: 'conflict',
    message: expect.stringMatching(`Edit ${old} is committed for the same prompt`),
  });
  const reason = instead.verdict === 'passes' ? {} : { reason: 'for the test' };
  await call('edits.commit', { id: anew, supersede: old, ...reason });
  expect((await call('edits.show', { id: old })).edit.status).toBe('retired');
  const answer = await call('answers.ask', {
    ...{ picture: pictures[1]!, prompt: 'What is above?', edits: 'committed' as const },
  });
  expect(answer.routing?.edit).toBe(anew);
  await expect(
    call('checks.run', { edit: await draft(2, 'Where?', 'left'), supersede: old }),
  ).rejects.toMatchObject({ code: 'conflict', message: expect.stringMatching(/not committed/) });
}, 120_000);

test('a check whose engine ends is told, and goes on where it was', async () => {
  const edit = await draft(2, 'How many?', 'two');
  const run = (input: CallInput<'checks.run'>) => call('checks.run', input);
  let described = false;
  instead = (name) => {
    described ||= name === 'describe';
    return described && name === 'answer' ? () => running.kill() : null;
  };
  asked = [];
  await expect(run({ edit })).rejects.toMatchObject({ code: 'engine' });
  expect(inputs('describe').flatMap(({ inputs: of }) => of).length).toBeGreaterThan(0);
  expect((await call('edits.show', { id: edit })).check).toBeNull();
  instead = null;
  await back();
  asked = [];
  const check = await run({ edit });
  expect(check.fresh).toBe(true);
  // What was described and signed before is not asked for again, of an editor without a map neither.
  expect(inputs('describe')).toEqual([]);
  expect(inputs('sign').flatMap(({ edits }) => edits.map(({ id }) => id))).not.toContain(edit);
}, 120_000);

test('a set whose commit loses the engine is committed all the same, and acts when the engine is back', async () => {
  const edits = [await draft(2, 'What colour is it?', 'red'), await draft(2, 'What size is it?', 'small')];
  await call('checks.runSet', { select: { edits } });
  let killed = 0;
  instead = (name) => (name === 'compare' && killed++ === 0 ? () => running.kill() : null);
  const done = await call('edits.commitSet', { select: { edits }, reason: 'for the test' });
  expect(killed).toBeGreaterThan(0);
  instead = null;
  expect(done).toEqual({ committed: edits, refused: [] });
  await back();
  const { routing } = await call('answers.ask', {
    ...{ picture: pictures[2]!, prompt: 'What colour is it?', edits: 'committed' as const },
  });
  expect(routing?.edit).toBe(edits[0]);
}, 120_000);
