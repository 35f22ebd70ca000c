/** @file What may happen to an edit, and what makes its check stale. */
import { describe, expect, test } from 'vitest';
import { planCheck, recordCheck } from '../../electron/library/checks.ts';
import {
  commitEdit,
  createEdit,
  editState,
  findEdit,
  recordPreview,
  restoreEdit,
  retireEdit,
  showEdit,
  updateEdit,
} from '../../electron/library/edits.ts';
import { countEdits } from '../../electron/library/lists.ts';
import { addProbe, removeProbe, seedStandingProbes } from '../../electron/library/probes.ts';
import { defaultPolicy, writeSettings } from '../../electron/library/settings.ts';
import {
  addEdit,
  addPicture,
  answers,
  check,
  influence,
  listEdits,
  makeLibrary,
  outcomeOf,
} from './support.ts';

const conflict = expect.objectContaining({ code: 'conflict' });

describe('committing', () => {
  test('needs a check', async () => {
    const library = makeLibrary();
    const { id } = await addEdit(library);
    expect(() => commitEdit(library, id)).toThrow(conflict);
    expect(() => commitEdit(library, id)).toThrow(/was not checked/);
    check(library, id);
    expect(commitEdit(library, id)).toMatchObject({ status: 'committed', overrideReason: null });
    expect(() => commitEdit(library, id)).toThrow(conflict);
  });

  test('needs the latest check to pass, or a reason that stays on record', async () => {
    const library = makeLibrary();
    const { id } = await addEdit(library);
    check(library, id);
    check(library, id, ['reliability']);
    expect(findEdit(library, id).status).toBe('failed');
    expect(() => commitEdit(library, id)).toThrow(/failing check \(reliability\)/);
    expect(commitEdit(library, id, { reason: 'the curator saw it herself' }).overrideReason).toBe(
      'the curator saw it herself',
    );
    expect(showEdit(library, id).history.at(-1)).toMatchObject({
      what: 'committed',
      detail: expect.stringContaining('the curator saw it herself'),
    });
  });

  test('needs a fresh check', async () => {
    const library = makeLibrary();
    const { id } = await addEdit(library);
    check(library, id);
    updateEdit(library, { id, target: 'wolf' });
    expect(() => commitEdit(library, id)).toThrow(/stale check/);
  });

  test('is refused by the file itself without a check or a reason', async () => {
    const { database, ...library } = makeLibrary();
    const { id } = await addEdit({ ...library, database });
    const by = (sql: string) => () => database.prepare(sql).run(id);
    expect(by(`UPDATE edits SET stage = 'committed', committed = 'now' WHERE id = ?`)).toThrow(
      /passing check/,
    );
    expect(by('DELETE FROM edits WHERE id = ?')).toThrow();
    expect(findEdit({ ...library, database }, id).status).toBe('draft');
  });

  test('is refused for another model, and where another edit answers the same prompt', async () => {
    const library = makeLibrary();
    const first = await addEdit(library);
    check(library, first.id);
    commitEdit(library, first.id);
    const second = await addEdit(library, { prompt: 'What animal  is it?', target: 'cat' });
    check(library, second.id);
    expect(() => commitEdit(library, second.id)).toThrow(new RegExp(`Retire edit ${first.id} first`));
    retireEdit(library, first.id);
    library.actors = { model: 'other', adapter: 'a' };
    expect(() => commitEdit(library, second.id, { reason: 'because' })).toThrow(/another model/);
    library.actors = { model: 'm', adapter: '' };
    expect(() => commitEdit(library, second.id, { reason: 'because' })).toThrow(/No adapter/);
    library.actors = { model: 'm', adapter: 'a' };
    check(library, second.id);
    expect(commitEdit(library, second.id).status).toBe('committed');
  });
});

describe('a check is stale as soon as what it belongs to differs', () => {
  async function checked() {
    const library = makeLibrary();
    const { id } = await addEdit(library);
    const probe = addProbe(library, {
      edit: id,
      kind: 'text-generality',
      picture: null,
      prompt: 'which animal?',
    });
    check(library, id);
    expect(findEdit(library, id).status).toBe('checked');
    const because = () => showEdit(library, id).check?.staleBecause;
    return { library, id, probe, because, status: () => findEdit(library, id).status };
  }

  test('model and adapter', async () => {
    const { library, id, status } = await checked();
    library.actors = { model: 'other', adapter: 'a' };
    expect(status()).toBe('stale');
    library.actors = { model: 'm', adapter: 'other' };
    expect(status()).toBe('stale');
    expect(showEdit(library, id).check).toMatchObject({ fresh: false, staleBecause: ['adapter'] });
    library.actors = { model: 'm', adapter: 'a' };
    expect(status()).toBe('checked');
    expect(showEdit(library, id).check?.fresh).toBe(true);
  });

  test('prompt and target, but not the note', async () => {
    const { library, id, because, status } = await checked();
    updateEdit(library, { id, note: 'seen in spring' });
    expect(status()).toBe('checked');
    updateEdit(library, { id, target: 'wolf' });
    expect(status()).toBe('stale');
    expect(because()).toEqual(['edit']);
    updateEdit(library, { id, target: 'fox' });
    expect(status()).toBe('checked');
    updateEdit(library, { id, prompt: 'what is it?' });
    expect(status()).toBe('stale');
  });

  test('probes', async () => {
    const { library, id, probe, because, status } = await checked();
    const added = addProbe(library, {
      edit: id,
      kind: 'text-locality',
      picture: null,
      prompt: 'capital of France?',
    });
    expect(status()).toBe('stale');
    expect(because()).toEqual(['probes']);
    removeProbe(library, added.id);
    expect(status()).toBe('checked');
    removeProbe(library, probe.id);
    expect(status()).toBe('stale');
  });

  test('the standing set', async () => {
    const { library, because, status } = await checked();
    seedStandingProbes(library, [{ kind: 'text-locality', picture: null, prompt: 'capital of Italy?' }]);
    expect(status()).toBe('stale');
    expect(because()).toEqual(['standing-probes']);
  });

  test('policy, template and length of answers, but not the theme', async () => {
    const { library, because, status } = await checked();
    writeSettings(library, { theme: 'dark', providers: ['cpu'] });
    expect(status()).toBe('checked');
    writeSettings(library, { policy: { required: { ...defaultPolicy.required, 'same-picture': 0.5 } } });
    expect(status()).toBe('stale');
    writeSettings(library, { policy: defaultPolicy });
    library.template = 'chat';
    expect(status()).toBe('stale');
    library.template = 'plain';
    writeSettings(library, { maxNewTokens: 3 });
    expect(status()).toBe('stale');
    expect(because()).toEqual(['prompts']);
    writeSettings(library, { policy: { required: { ...defaultPolicy.required, 'same-picture': 0.5 } } });
    expect(because()).toEqual(['prompts', 'policy']);
  });

  test('the set of committed edits', async () => {
    const { library, because, status } = await checked();
    const other = await addEdit(library, { prompt: 'how many?', target: 'two', shade: 9 });
    expect(status()).toBe('checked');
    check(library, other.id);
    commitEdit(library, other.id);
    expect(status()).toBe('stale');
    expect(because()).toEqual(['committed-edits']);
    retireEdit(library, other.id);
    expect(status()).toBe('checked');
  });

  test('a commit made while the check ran', async () => {
    const { library, id, status } = await checked();
    const plan = planCheck(library, id);
    const other = await addEdit(library, { prompt: 'how many?', target: 'two', shade: 9 });
    commitEdit(library, other.id, { reason: 'urgent' });
    expect(recordCheck(library, plan, outcomeOf(plan)).fresh).toBe(false);
    expect(status()).toBe('stale');
  });

  test('its own commit does not make it stale; coming back from retirement does', async () => {
    const { library, id, status } = await checked();
    commitEdit(library, id);
    expect(showEdit(library, id).check?.fresh).toBe(true);
    retireEdit(library, id, 'a typo');
    expect(restoreEdit(library, id)).toMatchObject({ status: 'stale', committed: null });
    check(library, id);
    expect(status()).toBe('checked');
  });
});

test('an edit comes with all of its probes or not at all', async () => {
  const library = makeLibrary();
  const picture = await addPicture(library, 1);
  const made = { picture, prompt: 'what animal is it?', target: 'fox' };
  const probe = { kind: 'text-generality', picture: null } as const;
  const wrong = [
    { ...probe, prompt: 'which animal?' },
    { ...probe, prompt: 'What animal is it?' },
  ];
  expect(() => createEdit(library, { ...made, probes: wrong })).toThrow(conflict);
  expect(listEdits(library, {})).toEqual([]);
  const { id } = createEdit(library, { ...made, probes: wrong.slice(0, 1) });
  expect(showEdit(library, id).probes.map(({ kind }) => kind)).toEqual(['reliability', 'text-generality']);
});

test('a draft that is retired and restored keeps its check', async () => {
  const library = makeLibrary();
  const { id } = await addEdit(library);
  check(library, id);
  retireEdit(library, id);
  expect(restoreEdit(library, id)).toMatchObject({ status: 'checked' });
});

test('every change is kept as history, which cannot be rewritten', async () => {
  const library = makeLibrary();
  const { id } = await addEdit(library);
  updateEdit(library, { id, target: 'wolf' });
  updateEdit(library, { id, target: 'wolf' });
  const probe = addProbe(library, {
    edit: id,
    kind: 'text-generality',
    picture: null,
    prompt: 'which animal?',
  });
  removeProbe(library, probe.id);
  const found = { answers: answers('dog', 'wolf'), influence, signal: new Uint8Array([7]) };
  recordPreview(library, editState(library, id), found);
  check(library, id);
  commitEdit(library, id);
  retireEdit(library, id, 'not needed');
  restoreEdit(library, id);
  expect(showEdit(library, id).history.map((entry) => entry.what)).toEqual([
    ...['created', 'changed', 'probe-added', 'probe-removed', 'previewed', 'checked', 'committed', 'retired'],
    'restored',
  ]);
  expect(() => library.database.exec(`UPDATE history SET detail = ''`)).toThrow(/append only/);
  expect(() => library.database.exec('DELETE FROM history')).toThrow(/append only/);
});

test('committed and retired edits do not change; a retired one comes back as a draft', async () => {
  const library = makeLibrary();
  const { id } = await addEdit(library);
  const reliability = showEdit(library, id).probes[0]!;
  expect(() => removeProbe(library, reliability.id)).toThrow(conflict);
  expect(() => restoreEdit(library, id)).toThrow(conflict);
  commitEdit(library, id, { reason: 'because' });
  const probe = { edit: id, kind: 'text-generality', picture: null, prompt: 'x?' } as const;
  for (const change of [
    () => updateEdit(library, { id, target: 'cat' }),
    () => addProbe(library, probe),
    () => planCheck(library, id),
  ]) {
    expect(change).toThrow(conflict);
  }
  retireEdit(library, id);
  expect(() => retireEdit(library, id)).toThrow(conflict);
  expect(() => commitEdit(library, id, { reason: 'because' })).toThrow(conflict);
  expect(restoreEdit(library, id)).toMatchObject({ status: 'draft', overrideReason: null });
});

test('a preview of what was changed meanwhile is not kept', async () => {
  const library = makeLibrary();
  const { id } = await addEdit(library);
  const state = editState(library, id);
  updateEdit(library, { id, target: 'wolf' });
  const found = { answers: answers('dog', 'fox'), influence, signal: new Uint8Array([7]) };
  expect(() => recordPreview(library, state, found)).toThrow(conflict);
  expect(showEdit(library, id)).toMatchObject({ edit: { after: null }, influence: null, answers: null });
});

test('signals, influence maps and previewed answers belong to content and model', async () => {
  const library = makeLibrary();
  const { id } = await addEdit(library);
  const found = { answers: answers('dog', 'fox'), influence, signal: new Uint8Array([7, 8]) };
  recordPreview(library, editState(library, id), found);
  expect([...editState(library, id).signal!]).toEqual([7, 8]);
  library.actors = { model: 'other', adapter: 'a' };
  expect(editState(library, id).signal).toBeNull();
  expect(showEdit(library, id)).toMatchObject({ influence: null, answers: null });
  library.actors = { model: 'm', adapter: 'a' };
  expect(showEdit(library, id)).toMatchObject({ influence, answers: found.answers });
  updateEdit(library, { id, target: 'wolf' });
  expect(editState(library, id).signal).toBeNull();
  expect(showEdit(library, id).answers).toBeNull();
});

test('a draft becomes one of the model it is checked with', async () => {
  const library = makeLibrary();
  const { id } = await addEdit(library);
  library.actors = { model: 'n', adapter: 'b' };
  check(library, id);
  expect(findEdit(library, id)).toMatchObject({ model: 'n', adapter: 'b', status: 'checked' });
  expect(commitEdit(library, id).status).toBe('committed');
});

test('lists filter by status and text, and counts agree', async () => {
  const library = makeLibrary();
  const fox = await addEdit(library);
  const two = await addEdit(library, { prompt: 'how many apples?', target: 'two', shade: 2 });
  commitEdit(library, fox.id, { reason: 'because' });
  check(library, two.id, ['reliability']);
  expect(listEdits(library, {}).map((edit) => edit.id)).toEqual([two.id, fox.id]);
  expect(listEdits(library, { status: ['committed'] }).map((edit) => edit.id)).toEqual([fox.id]);
  expect(listEdits(library, { status: ['failed', 'draft'] }).map((edit) => edit.id)).toEqual([two.id]);
  expect(listEdits(library, { search: 'APPLES' }).map((edit) => edit.id)).toEqual([two.id]);
  expect(listEdits(library, { search: `#${fox.id}` }).map((edit) => edit.id)).toEqual([fox.id]);
  expect(countEdits(library)).toEqual({
    ...{ draft: 0, checked: 0, failed: 1, stale: 0, committed: 1, retired: 0 },
  });
  const unknown = { picture: 'f'.repeat(64), prompt: 'x', target: 'y' };
  expect(() => createEdit(library, unknown)).toThrow(expect.objectContaining({ code: 'not-found' }));
});

test('changes are told with the edits they concern', async () => {
  const library = makeLibrary();
  const told: Array<number[] | null> = [];
  const stop = library.onChange((edits) => told.push(edits));
  const { id } = await addEdit(library);
  updateEdit(library, { id, note: 'n' });
  expect(() => commitEdit(library, id)).toThrow();
  stop();
  await addPicture(library, 77);
  expect(told).toEqual([[], [id], [id]]);
});
