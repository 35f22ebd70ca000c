/** @file A local check says what a replay of everything would; a check is stale exactly when one of its probes is answered otherwise. */
import { expect, test } from 'vitest';
import type { ProbeResult } from '../../electron/api/contract.ts';
import { probePasses } from '../../electron/evaluation/exactMatch.ts';
import { driftOf, latestCheck, planCheck } from '../../electron/library/checks.ts';
import { commitEdit, createEdit, findEdit, retireEdit, showEdit } from '../../electron/library/edits.ts';
import { probesOf, seedStandingProbes } from '../../electron/library/probes.ts';
import { actingRows, editRow, mustChange, ownProbes } from '../../electron/library/rows.ts';
import { defaultPolicy, writeSettings } from '../../electron/library/settings.ts';
import { findingOf, judge } from '../../electron/library/verdict.ts';
import { DrawnModel, describeInput, randomScope } from './randomScope.ts';
import { addPicture, makeLibrary } from './support.ts';

function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1_664_525 + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

async function drawnLibrary(seed: number, brackets: readonly number[], topics = 12) {
  const library = makeLibrary();
  // Nothing here is to outlive a power cut.
  library.database.pragma('synchronous = OFF');
  const pictures = [await addPicture(library, 1), await addPicture(library, 2), await addPicture(library, 3)];
  const standing = ['topic 1, standing?', 'topic 2, standing?', 'topic 3, standing?'];
  seedStandingProbes(library, [
    ...standing.map((prompt, i) => ({ kind: 'image-locality' as const, picture: pictures[i]!, prompt })),
    { kind: 'text-locality', picture: null, prompt: 'capital of France?' },
    { kind: 'same-picture', picture: null, prompt: 'topic 4, standing?' },
  ]);
  const model = new DrawnModel(library, randomScope(brackets));
  const draw = generator(seed);
  let number = 0;
  const draft = () =>
    model.draft(pictures[draw(3)]!, draw(topics), number++, draw(3) === 0 ? 'thing' : 'picture');
  return { library, model, draw, draft };
}

/**
 * Every probe of the plan and of every committed edit, asked of all committed edits, without the draft and with it; with it in the
 * place of `supersede`, and without the probes of that, where it is given.
 */
async function replay(
  model: DrawnModel,
  id: number,
  supersede: number | null = null,
): Promise<ProbeResult[]> {
  const { library } = model;
  const edit = editRow(library, id);
  const own = ownProbes(library, edit);
  const taken = (picture: string | null, prompt: string) =>
    own.some((probe) => probe.picture === picture && probe.prompt === prompt);
  const [without, withIt] = [model.bank(), model.bank(id, supersede)];
  const committed = actingRows(library)
    .filter((other) => other.id !== supersede)
    .flatMap((other) => ownProbes(library, other))
    .filter((probe) => mustChange.has(probe.kind) || !taken(probe.picture, probe.prompt))
    .map((probe) => ({ probe: { ...probe, kind: 'committed' as const, expected: null }, owner: probe.edit }));
  const results: ProbeResult[] = [];
  for (const { probe, owner } of [...probesOf(library, edit), ...committed]) {
    const { picture, prompt, expected, kind } = probe;
    const acting = {
      before: picture === null ? null : await model.actor(picture, prompt, without),
      after: picture === null ? null : await model.actor(picture, prompt, withIt),
    };
    const [unedited, before, after] = [null, acting.before, acting.after].map((by) =>
      model.answer(prompt, by),
    );
    results.push({
      ...{ probe, owner, unedited: unedited!, before: before!, after: after!, acting, routing: null },
      drift: driftOf({ kind, expected, unedited: unedited!, before: before!, acting, together: false }),
      passes: probePasses(expected, before!, after!),
    });
  }
  return results;
}

const told = ({ probe, owner, unedited, before, after, acting, drift, passes }: ProbeResult) =>
  JSON.stringify([probe.id, probe.kind, owner, unedited, before, after, acting, drift, passes]);

test.each([
  [1, [40, 90, 160], 160, 11],
  [2, [25, 26, 27, 120], 160, 11],
  [3, [60, 200, 300], 360, 37],
])(
  'verdicts are those of a full replay (library %i, thresholds rise at %j, %i edits)',
  async (seed, brackets, steps, every) => {
    const { library, model, draw, draft } = await drawnLibrary(seed, brackets);
    let [changed, drifted, entangled, replaced] = [0, 0, 0, 0];
    for (let step = 0; step < steps; step++) {
      const id = draft();
      // Now and then it is to take the place of the edit that acts on its own question.
      const { picture, prompt } = editRow(library, id);
      const acting = step % 2 ? await model.actor(picture, prompt, model.bank()) : null;
      if (step % every === 5) {
        const check = await model.check(id, acting);
        const whole = await replay(model, id, acting);
        expect(check.supersede).toBe(acting);
        const { groups, verdict } = judge(whole, planCheck(library, id).policy, 'VisEdit');
        expect({ groups: check.groups, verdict: check.verdict }).toEqual({ groups, verdict });
        expect(check.finding).toEqual(findingOf(id, whole, groups));
        // Rows that are not told are those of committed edits on which nothing changes.
        const relevant = whole.filter(
          ({ probe, acting }) => probe.kind !== 'committed' || acting.before !== acting.after,
        );
        expect(check.results.map(told).sort()).toEqual(relevant.map(told).sort());
        changed += relevant.filter(({ probe }) => probe.kind === 'committed').length;
        drifted += relevant.filter(({ drift }) => drift !== null).length;
        entangled += check.finding.kind === 'entangled' ? 1 : 0;
        replaced += acting === null ? 0 : 1;
      }
      await model.commit(id, step % (2 * every) === 5 ? (acting ?? undefined) : undefined);
      if (step > 30 && draw(8) === 0) {
        const rows = actingRows(library);
        retireEdit(library, rows[draw(rows.length)]!.id);
      }
    }
    expect(actingRows(library).length).toBeGreaterThan(0.7 * steps);
    // The libraries are such that there is something to find.
    expect(changed).toBeGreaterThan(3);
    expect(drifted).toBeGreaterThan(3);
    expect(entangled).toBeGreaterThan(0);
    expect(replaced).toBeGreaterThan(2);
  },
  300_000,
);

test('a check is stale exactly when one of its probes would be answered otherwise, by the edit that did it', async () => {
  const { library, model, draw, draft } = await drawnLibrary(5, [45], 80);
  for (let i = 0; i < 16; i++) await model.commit(draft());
  const watched = [];
  for (let i = 0; i < 6; i++) {
    const id = draft();
    await model.check(id);
    watched.push({ id, whole: await answers(model, id) });
  }
  const seen = { stale: 0, fresh: 0, cautious: 0, afterRetirement: 0 };
  for (let step = 0; step < 40; step++) {
    const retires = step % 5 === 4;
    const acting = actingRows(library);
    const cause = retires ? acting[draw(acting.length)]!.id : draft();
    if (retires) retireEdit(library, cause);
    else await model.commit(cause);
    await model.settle();
    for (const { id, whole } of watched) {
      const check = latestCheck(library, editRow(library, id))!;
      const same = JSON.stringify(await answers(model, id, whole)) === JSON.stringify(whole);
      // Never fresh when it is not.
      if (!same) expect({ step, id, fresh: check.fresh }).toEqual({ step, id, fresh: false });
      if (same && !check.fresh) seen[retires ? 'afterRetirement' : 'cautious'] += 1;
      seen[check.fresh ? 'fresh' : 'stale'] += 1;
      expect(check.fresh).toBe(check.staleBecause.length === 0);
      if (!check.fresh) expect(check.staleBecause).toEqual(['committed-edits']);
      expect(findEdit(library, id).status === 'stale').toBe(!check.fresh);
    }
  }
  expect(seen.stale).toBeGreaterThan(10);
  expect(seen.fresh).toBeGreaterThan(3);
  // Nor stale when it need not be.
  expect(seen.cautious).toBe(0);
}, 300_000);

/**
 * The answers a check rests on: library now and with the draft, of each of its probes; and of committed edits' probes those that the
 * draft changes. `was`: leaves out what was told then of probes that are not there any more.
 */
async function answers(
  model: DrawnModel,
  id: number,
  was?: Record<string, unknown>,
): Promise<Record<string, unknown>> {
  const results = (await replay(model, id)).filter(
    ({ probe, before, after }) =>
      probe.kind !== 'committed' || before !== after || (was && `${probe.id}` in was),
  );
  return Object.fromEntries(results.map(({ probe, before, after }) => [`${probe.id}`, [before, after]]));
}

test('an edit checked to take the place of another is committed so without a reason, and only so', async () => {
  const { library, model } = await drawnLibrary(11, []);
  // What counts here is its own question, and what others ask.
  const required = Object.fromEntries(
    Object.keys(defaultPolicy.required).map((kind) => [kind, kind === 'reliability' ? 1 : 0]),
  ) as typeof defaultPolicy.required;
  writeSettings(library, { policy: { required } });
  const picture = await addPicture(library, 1);
  const old = model.draft(picture, 20, 1000);
  await model.commit(old);
  const anew = createEdit(library, {
    picture,
    prompt: editRow(library, old).prompt,
    target: 'right at last',
  }).id;
  const beside = await model.check(anew);
  expect(beside.verdict).toBe('fails');
  const check = await model.check(anew, old);
  expect(check).toMatchObject({ verdict: 'passes', fresh: true, supersede: old });
  expect(() => commitEdit(library, anew)).toThrow(/commit this one in its place/);
  // What comes to act on its question makes the check stale; what has nothing to do with it does not.
  await model.commit(model.draft(picture, 40, 1001));
  expect(findEdit(library, anew).status).toBe('checked');
  expect(commitEdit(library, anew, { supersede: old })).toMatchObject({
    ...{ status: 'committed', overrideReason: null },
  });
  expect(findEdit(library, old).status).toBe('retired');
  expect(() => planCheck(library, model.draft(picture, 50, 1002), old)).toThrow(/not committed/);
});

test('a commit that has nothing to do with a check leaves it fresh; a related one tells which edit it was', async () => {
  const { library, model } = await drawnLibrary(9, []);
  const [picture] = [await addPicture(library, 1)];
  const one = model.draft(picture!, 20, 1000);
  await model.check(one);
  const far = model.draft(picture!, 40, 1001);
  await model.commit(far);
  expect(showEdit(library, one).check).toMatchObject({ fresh: true, staleBecause: [], staleBy: [] });
  // the same question of the same picture, in other words
  const near = model.draft(picture!, 20, 1000);
  await model.commit(near);
  expect(showEdit(library, one).check).toMatchObject({
    fresh: false,
    staleBecause: ['committed-edits'],
    staleBy: [near],
  });
  retireEdit(library, near);
  expect(showEdit(library, one).check).toMatchObject({ fresh: true, staleBy: [] });
});

test('edits of a set that disturb each other are named as pairs, with how many probes, as asking all of them would', async () => {
  const { library, model, draft } = await drawnLibrary(5, [20, 24], 5);
  for (let i = 0; i < 14; i++) await model.commit(draft());
  const set = Array.from({ length: 12 }, draft);
  for (const id of set) await model.check(id);

  const expected: string[] = [];
  for (const disturbs of set) {
    for (const edit of set) {
      if (edit === disturbs) continue;
      const [alone, both] = [model.bank(disturbs), model.bank(disturbs)];
      const { picture, prompt, reach } = editRow(library, edit);
      both.add(edit, reach, describeInput(picture, prompt));
      let probes = 0;
      for (const probe of ownProbes(library, editRow(library, disturbs))) {
        const without = await model.actor(probe.picture!, probe.prompt, alone);
        const acting = await model.actor(probe.picture!, probe.prompt, both);
        const differ = model.answer(probe.prompt, without) !== model.answer(probe.prompt, acting);
        if (acting === edit && differ) probes++;
      }
      if (probes > 0) expected.push(`edit ${edit} disturbs edit ${disturbs} on ${probes}`);
    }
  }
  const told = (await model.disturbing(set)).map(
    ({ edit, disturbs, probes }) => `edit ${edit} disturbs edit ${disturbs} on ${probes}`,
  );
  expect(told.toSorted()).toEqual(expected.toSorted());
  // some do, most do not
  expect(expected.length).toBeGreaterThan(3);
  expect(expected.length).toBeLessThan(66);
}, 60_000);
