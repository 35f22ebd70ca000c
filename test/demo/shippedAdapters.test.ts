/** @file The trained editors in `resources`: all there, small together, of the shipped model, and each changes an answer with an edit and gives it back. */
import { readdirSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { editorKinds } from '../../electron/editors/registry.ts';
import { OpenModel } from '../../electron/engine/openModel.ts';
import { resourcesFolder } from '../../electron/frontends/places.ts';

/** Bytes that the weights of all of them may take. */
const MOST_BYTES = 12e6;

const resources = resourcesFolder();
const folders = readdirSync(resources).filter((name) =>
  statSync(join(resources, name, 'adapter.json'), { throwIfNoEntry: false }),
);
const describe = async (folder: string) =>
  JSON.parse(await readFile(join(resources, folder, 'adapter.json'), 'utf8')) as { editor: string };

test('every editor that is trained is there, and they are small together', async () => {
  const shipped = await Promise.all(folders.map(async (folder) => (await describe(folder)).editor));
  const trained = editorKinds.filter(({ training }) => training).map(({ name }) => name);
  expect(shipped.toSorted()).toEqual(trained.toSorted());
  const files = folders.flatMap((folder) =>
    readdirSync(join(resources, folder)).map((name) => join(resources, folder, name)),
  );
  expect(files.reduce((sum, file) => sum + statSync(file).size, 0)).toBeLessThan(MOST_BYTES);
});

test.each(folders)(
  '%s: an edit changes the answer to its question, and without it the answer is as it was',
  async (folder) => {
    const model = await OpenModel.open(
      {
        path: join(resources, 'demo-model'),
        adapter: join(resources, folder),
        providers: ['cpu'],
        template: 'plain',
      },
      { signal: new AbortController().signal, send: () => {} },
    );
    const { edited } = model;
    const visual = await model.see(await readFile(join(resources, 'samples/leopard.jpg')));
    const question = { visual, prompt: 'What animal is this?' };
    const prepared = await edited.prepare(visual, question.prompt);
    const answer = async (edits: Parameters<typeof edited.effect>[0]) =>
      (await edited.answerUnder(prepared, edited.effect(edits), { maxNewTokens: 8 })).text;
    const before = await answer([]);
    const target = 'giraffe';
    expect(before).not.toBe(target);
    const edit = await edited.make({ ...question, target });
    expect(await answer([edited.decode(edited.encode(edit))])).toBe(target);
    expect(await answer([])).toBe(before);
    await model.dispose();
  },
);
