/** @file The command that trains the demo's editors: each of its trainings is one that `emend train` takes for the demo model. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { trainCommand, trainingRequest } from '../../electron/cli/train.ts';
import { demoEditors, editorTrainings } from '../../electron/demo/editorTrainings.ts';
import { demandEditor, editorKinds } from '../../electron/editors/registry.ts';
import { parseSettings } from '../../electron/editors/settings.ts';
import type { TrainingRequest } from '../../electron/evaluation/trainingRun.ts';
import { openCheckpoint } from '../../electron/models/open.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'emend-demo-editors-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What `emend train` makes of a command line. */
async function asked(args: readonly string[]): Promise<TrainingRequest> {
  let request: TrainingRequest | undefined;
  const command = trainCommand().exitOverride();
  command.action((options) => {
    request = trainingRequest(options, command);
  });
  await command.parseAsync(args, { from: 'user' });
  return request!;
}

test('every editor that is trained has its command, which is taken with the settings it gives', async () => {
  const trained = editorKinds.filter(({ training }) => training).map(({ name }) => name);
  expect(demoEditors.toSorted()).toEqual(trained.toSorted());
  const all = editorTrainings('out');
  expect(new Set(all.map(({ folder: into }) => into)).size).toBe(all.length);
  const made: string[] = [];
  for (const { editor, args, folder: into, steps } of all) {
    const request = await asked(args);
    expect(request).toMatchObject({ editor, extended: true, validation: null, options: { steps } });
    // As a training begins: settings that the editor has, of layers that the demo model has.
    const { training } = demandEditor(editor);
    const settings = parseSettings(editor, training!.settings, request.settings);
    const needs = training!.needs(settings, await openCheckpoint(request.model));
    expect(needs.cuts.length + needs.changeable.length).toBeGreaterThan(0);
    // What it goes on from has been trained before.
    if (request.from !== undefined) expect(made).toContain(request.from);
    made.push(into);
  }
  const named = (name: string) => asked(all.find(({ folder: into }) => into.endsWith(name))!.args);
  expect(await named('dualedit-demo')).toMatchObject({ from: join('out', 'dualedit-begun') });
  // Alone it begins with the same.
  const alone = editorTrainings('out', ['DualEdit']);
  expect(alone.map(({ folder: into }) => into)).toEqual(
    all.map(({ folder: into }) => into).filter((into) => /published|begun|further|dualedit/.test(into)),
  );
});

const run = (...args: string[]) =>
  promisify(execFile)(process.execPath, [
    join(import.meta.dirname, '../../electron/demo/trainEditors.ts'),
    ...args,
  ]);

test('what is done is passed over, what is not begins, and nothing follows what failed', async () => {
  const all = editorTrainings(folder);
  const record = async (training: (typeof all)[number], step: number) => {
    const { folder: into, editor, steps } = training;
    const run = {
      request: { editor, name: 'x', model: 'm', data: 'd', settings: {}, options: { steps } },
      created: '',
      progress: { step, seconds: 1, best: null, finished: true },
    };
    await mkdir(join(into, 'training'), { recursive: true });
    await writeFile(join(into, 'training', 'run.json'), JSON.stringify(run));
    await writeFile(join(into, 'adapter.json'), '{}');
  };
  for (const training of all) await record(training, training.steps);
  const { stdout } = await run('--out', folder);
  expect(stdout.match(/ is there\.$/gm)).toHaveLength(all.length);
  // The second of VisEdit's, of which an adapter was made too early, goes on from the first, whose adapter here is none.
  await record(all[1]!, 3);
  const failed = await run('--out', folder, '--editor', 'KE,VisEdit').catch((error) => error);
  expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining('visedit-begun') });
  expect(failed.stdout.trim().split('\n')).toEqual([
    `${all[0]!.folder} is there.`,
    expect.stringContaining(`emend train --editor VisEdit`),
  ]);
});

test('what cannot be meant is said before anything begins', async () => {
  for (const [args, said] of [
    [[], '--out is missing'],
    [['--out', folder, '--editor', 'ROME'], 'VisEdit,DualEdit'],
  ] as const)
    await expect(run(...args)).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining(said) });
});
