/** @file Which probes a check runs, and what their results come to. */
import { expect, test } from 'vitest';
import type { ProbeKind } from '../../electron/api/contract.ts';
import { planCheck } from '../../electron/library/checks.ts';
import { commitEdit, retireEdit, updateEdit } from '../../electron/library/edits.ts';
import {
  addProbe,
  committedProbesAt,
  countCommittedProbes,
  removeProbe,
  seedStandingProbes,
} from '../../electron/library/probes.ts';
import { editRow, standingProbes } from '../../electron/library/rows.ts';
import { defaultPolicy } from '../../electron/library/settings.ts';
import { judge } from '../../electron/library/verdict.ts';
import { addEdit, addPicture, check, makeLibrary, outcomeOf } from './support.ts';

async function seeded() {
  const library = makeLibrary();
  const other = await addPicture(library, 100);
  const third = await addPicture(library, 101);
  seedStandingProbes(library, [
    { kind: 'text-locality', picture: null, prompt: 'capital of France?' },
    { kind: 'image-locality', picture: other, prompt: 'how many?' },
    { kind: 'image-locality', picture: third, prompt: 'what colour?' },
    { kind: 'same-picture', picture: null, prompt: 'What colour is the background?' },
    { kind: 'same-picture', picture: null, prompt: 'What animal is it?' },
  ]);
  return { library, other, third };
}

const told = (plan: ReturnType<typeof planCheck>) =>
  plan.probes.map(({ probe, owner }) => [probe.kind, probe.prompt, probe.picture, probe.expected, owner]);

test('own probes, standing set, same picture and same question; those of committed edits are counted', async () => {
  const { library, other, third } = await seeded();
  const first = await addEdit(library, { prompt: 'how many foxes?', target: 'two', shade: 50 });
  addProbe(library, { edit: first.id, kind: 'text-generality', picture: null, prompt: 'number of foxes?' });
  addProbe(library, { edit: first.id, kind: 'text-locality', picture: null, prompt: 'is ice cold?' });
  commitEdit(library, first.id, { reason: 'because' });

  const edit = await addEdit(library);
  addProbe(library, { edit: edit.id, kind: 'image-generality', picture: other, prompt: edit.prompt });
  const plan = planCheck(library, edit.id);
  expect(told(plan)).toEqual([
    ['reliability', 'what animal is it?', edit.picture, 'fox', null],
    ['image-generality', 'what animal is it?', other, 'fox', null],
    ['text-locality', 'capital of France?', null, null, null],
    ['image-locality', 'how many?', other, null, null],
    ['image-locality', 'what colour?', third, null, null],
    // the standing question that is the edit's own prompt is left out
    ['same-picture', 'What colour is the background?', edit.picture, null, null],
    // and so is the standing picture on which the edit's prompt must change
    ['same-question', 'what animal is it?', third, null, null],
  ]);
  expect(countCommittedProbes(library, plan.edit)).toBe(3);
  const ids = plan.probes.map(({ probe }) => probe.id);
  expect(new Set(ids).size).toBe(ids.length);

  retireEdit(library, first.id);
  expect(countCommittedProbes(library, plan.edit)).toBe(0);
});

test('what a committed edit asks to stay is asked again, unless the new edit means to change just that', async () => {
  const { library } = await seeded();
  const first = await addEdit(library, { prompt: 'how many foxes?', target: 'two' });
  const colour = { edit: first.id, kind: 'same-picture', picture: null, prompt: 'which colour?' } as const;
  addProbe(library, colour);
  commitEdit(library, first.id, { reason: 'because' });
  const ofCommitted = (id: number) =>
    ['how many foxes?', 'which colour?']
      .flatMap((prompt) =>
        committedProbesAt(library, editRow(library, id), { picture: first.picture, prompt }),
      )
      .map(({ probe, owner }) => [probe.kind, probe.prompt, probe.expected, owner]);
  const other = await addEdit(library);
  expect(ofCommitted(other.id)).toEqual([
    ['committed', 'how many foxes?', null, first.id],
    ['committed', 'which colour?', null, first.id],
  ]);
  expect(countCommittedProbes(library, editRow(library, other.id))).toBe(2);
  const meant = await addEdit(library, { prompt: 'Which colour?', target: 'red' });
  expect(ofCommitted(meant.id)).toEqual([['committed', 'how many foxes?', null, first.id]]);
  expect(countCommittedProbes(library, editRow(library, meant.id))).toBe(1);
});

test('what generality probes must answer follows the target', async () => {
  const library = makeLibrary();
  const { id } = await addEdit(library);
  addProbe(library, { edit: id, kind: 'text-generality', picture: null, prompt: 'which animal?' });
  updateEdit(library, { id, target: 'wolf', prompt: 'animal?' });
  expect(planCheck(library, id).probes.map(({ probe }) => [probe.prompt, probe.expected])).toEqual([
    ['animal?', 'wolf'],
    ['which animal?', 'wolf'],
  ]);
});

test('kinds and pictures must go together', async () => {
  const library = makeLibrary();
  const edit = await addEdit(library);
  const other = await addPicture(library, 9);
  const add = (
    kind: Exclude<ProbeKind, 'committed' | 'reliability'>,
    picture: string | null,
    prompt = 'q?',
  ) => expect(() => addProbe(library, { edit: edit.id, kind, picture, prompt }));
  const invalid = expect.objectContaining({ code: 'invalid-input' });
  add('text-generality', other).toThrow(invalid);
  add('same-picture', other).toThrow(invalid);
  add('text-locality', other).toThrow(invalid);
  add('image-locality', null).toThrow(invalid);
  add('image-generality', edit.picture).toThrow(invalid);
  add('image-locality', 'e'.repeat(64)).toThrow(expect.objectContaining({ code: 'not-found' }));
  add('same-picture', null, 'What animal is it?').toThrow(expect.objectContaining({ code: 'conflict' }));
  expect(
    addProbe(library, { edit: edit.id, kind: 'same-picture', picture: null, prompt: 'q?' }).picture,
  ).toBe(edit.picture);
});

test('the standing set is given once and stays', async () => {
  const { library } = await seeded();
  expect(seedStandingProbes(library, [{ kind: 'text-locality', picture: null, prompt: 'x' }])).toBe(false);
  const [first, ...others] = standingProbes(library);
  expect(others).toHaveLength(4);
  expect(() => removeProbe(library, first!.id)).toThrow(expect.objectContaining({ code: 'conflict' }));
});

test('the verdict follows the policy, kinds without probes aside', async () => {
  const { library } = await seeded();
  const { id } = await addEdit(library);
  const plan = planCheck(library, id);
  const { groups, verdict } = judge(outcomeOf(plan).results, defaultPolicy, 'VisEdit');
  expect(verdict).toBe('passes');
  expect(groups.find((group) => group.kind === 'text-generality')).toMatchObject({ total: 0, passes: true });
  expect(groups.find((group) => group.kind === 'text-locality')?.byConstruction).toMatch(/visual rows/);
  expect(judge([], defaultPolicy, 'DualEdit').groups.every((group) => group.byConstruction === null)).toBe(
    true,
  );

  const failed = check(library, id, ['image-locality']);
  expect(failed).toMatchObject({ verdict: 'fails', fresh: true });
  expect(failed.groups.filter((group) => !group.passes).map((group) => group.kind)).toEqual([
    'image-locality',
  ]);
  expect(failed.results.filter((result) => !result.passes)).toHaveLength(2);
});

test.each([
  [19, 20, 0.95, true],
  [18, 20, 0.95, false],
  [9, 10, 0.9, true],
  [3, 4, 0.75, true],
])('%i of %i reach %f: %s', (passed, total, required, passes) => {
  const probe = {
    id: 1,
    edit: null,
    kind: 'image-locality',
    picture: null,
    prompt: 'q',
    expected: null,
  } as const;
  const results = Array.from({ length: total }, (_, index) => ({
    ...{ probe, owner: null, unedited: 'a', before: 'a', after: 'a', drift: null, routing: null },
    acting: { before: null, after: null },
    passes: index < passed,
  }));
  const policy = { required: { ...defaultPolicy.required, 'image-locality': required } };
  expect(judge(results, policy, 'VisEdit').verdict).toBe(passes ? 'passes' : 'fails');
});
