/** @file How edits stand follows the model and the settings of whoever asks, and nothing is written when those change. */
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { expect, test } from 'vitest';
import { commitEdit, createEdit, findEdit, showEdit, updateEdit } from '../../electron/library/edits.ts';
import type { Library } from '../../electron/library/library.ts';
import { countEdits, editNumbers } from '../../electron/library/lists.ts';
import { APPLICATION_ID, upgradeSteps } from '../../electron/library/schema.ts';
import { defaultPolicy, writeSettings } from '../../electron/library/settings.ts';
import { addEdit, addPicture, check, makeLibrary, temporaryFolder } from './support.ts';

const stricter = { required: { ...defaultPolicy.required, 'same-picture': 0.5 } };

test('programs with different models on one library each see their own statuses', async () => {
  const path = join(temporaryFolder(), 'shared.emend');
  const app = makeLibrary(path);
  const tool = makeLibrary(path);
  const { id } = await addEdit(app);
  check(app, id);
  tool.actors = { model: 'other', adapter: 'b' };
  expect(findEdit(tool, id).status).toBe('stale');
  expect(showEdit(tool, id).check).toMatchObject({ fresh: false, staleBecause: ['model', 'adapter'] });
  // Something is written there, under its own model.
  const two = await addEdit(tool, { prompt: 'how many?', shade: 2 });
  check(tool, two.id);
  commitEdit(tool, two.id);

  expect(findEdit(app, id).status).toBe('checked');
  expect(countEdits(app)).toMatchObject({ checked: 1, stale: 0, committed: 1 });
  expect(countEdits(tool)).toMatchObject({ checked: 0, stale: 1, committed: 1 });
  // It goes by its own: the check of before is enough.
  expect(commitEdit(app, id).overrideReason).toBeNull();
});

test('a change that makes every check stale is told to other programs, and writes to no edit', async () => {
  const path = join(temporaryFolder(), 'shared.emend');
  const app = makeLibrary(path);
  const tool = makeLibrary(path);
  const picture = await addPicture(app, 1);
  app.write(() => {
    for (let i = 0; i < 200; i++) check(app, createEdit(app, { picture, prompt: `${i}?`, target: 'fox' }).id);
  });
  expect(countEdits(app)).toMatchObject({ checked: 200, stale: 0 });
  const told: Array<number[] | null> = [];
  app.onChange((edits) => told.push(edits));

  const changes = () => tool.database.prepare<[], number>('SELECT total_changes()').pluck().get()!;
  const before = changes();
  writeSettings(tool, { policy: stricter });
  expect(changes() - before).toBeLessThan(5);
  expect(countEdits(app)).toMatchObject({ checked: 0, stale: 200 });
  await expect.poll(() => told, { timeout: 5000 }).toContain(null);
  writeSettings(tool, { policy: defaultPolicy });
  expect(countEdits(app)).toMatchObject({ checked: 200, stale: 0 });
});

test('checks of another model are listed, counted and sorted as stale', async () => {
  const library = makeLibrary();
  const ids: number[] = [];
  for (let i = 0; i < 4; i++) ids.push((await addEdit(library, { prompt: `${i}?` })).id);
  const [one, two, three, four] = ids as [number, number, number, number];
  check(library, one);
  check(library, two, ['reliability']);
  library.actors = { model: 'n', adapter: 'b' };
  check(library, three);
  const sort = { by: 'status', descending: false } as const;
  const sorted = (offset = 0) => editNumbers(library, { filter: {}, sort, offset, limit: 9 });
  const stale = () => editNumbers(library, { filter: { status: ['stale'] }, sort, offset: 0, limit: 9 });
  expect(sorted()).toEqual([three, four, one, two]);
  expect(sorted(2)).toEqual([one, two]);
  expect(stale()).toEqual([one, two]);
  library.actors = { model: 'm', adapter: 'a' };
  expect(sorted()).toEqual([one, four, two, three]);
  expect(stale()).toEqual([three]);
});

test('libraries of before keep their statuses', async () => {
  const model = makeLibrary();
  const ids: number[] = [];
  for (let i = 0; i < 4; i++) ids.push((await addEdit(model, { prompt: `${i}?` })).id);
  for (const id of ids) check(model, id);
  model.actors = { model: 'n', adapter: 'b' };
  check(model, ids[1]!);
  model.actors = { model: 'm', adapter: 'a' };
  updateEdit(model, { id: ids[2]!, target: 'wolf' });
  const path = join(temporaryFolder(), 'old.emend');
  copyAsOld(model, path);

  const library = makeLibrary(path);
  expect(ids.map((id) => findEdit(library, id).status)).toEqual(['checked', 'stale', 'stale', 'stale']);
  expect(ids.map((id) => showEdit(library, id).check!.staleBecause)).toEqual([
    [],
    ['model', 'adapter'],
    ['edit'],
    ['plan'],
  ]);
  expect(countEdits(library)).toMatchObject({ draft: 0, checked: 1, stale: 3 });
  library.actors = { model: 'n', adapter: 'b' };
  expect(ids.map((id) => findEdit(library, id).status)).toEqual(['stale', 'checked', 'stale', 'stale']);
});

/** The edits of a library as version 7 would have them, under model m; the last with a check of the first version. */
function copyAsOld(library: Library, path: string): void {
  const old = new Sqlite(path);
  for (const step of upgradeSteps.slice(0, 7)) old.exec(step);
  old.pragma(`application_id = ${APPLICATION_ID}`);
  old.pragma('user_version = 7');
  const copy = (table: string, columns: string) => {
    const rows = library.database.prepare<[], Record<string, unknown>>(`SELECT ${columns} FROM ${table}`);
    for (const row of rows.iterate()) {
      const names = Object.keys(row);
      const places = names.map((name) => `@${name}`).join(', ');
      old.prepare(`INSERT INTO ${table} (${names.join(', ')}) VALUES (${places})`).run(row);
    }
  };
  copy('pictures', '*');
  copy('edits', 'id, picture, prompt, target, note, stage, model, adapter, created, updated');
  copy('checks', 'id, edit, finished, seconds, verdict, fingerprint, groups, stale_because');
  // As it was written when model m acted.
  old.exec(`UPDATE checks SET stale_because = '["model","adapter"]' WHERE id = (SELECT last_check FROM edits WHERE id = 2);
    UPDATE checks SET stale_because = '["plan"]', fingerprint = 'f00' WHERE id = (SELECT last_check FROM edits WHERE id = 4)`);
  old.close();
}
