/** @file A local check says what a replay of everything would; a check is stale exactly when one of its probes is answered otherwise. */
import { expect, test } from 'vitest';
import type { ProbeResult } from '../../electron/api/contract.ts';
import { probePasses } from '../../electron/evaluation/exactMatch.ts';
import { driftOf, latestCheck, planCheck } from '../../electron/library/checks.ts';
import { findEdit, retireEdit, showEdit } from '../../electron/library/edits.ts';
import { probesOf, seedStandingProbes } from '../../electron/library/probes.ts';
import { actingRows, editRow, mustChange, ownProbes } from '../../electron/library/rows.ts';
import { findingOf, judge } from '../../electron/library/verdict.ts';
import { DrawnModel, randomScope } from './randomScope.ts';
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

/** Every probe of the plan and of every committed edit, asked of all committed edits, without the draft and with it. */
async function replay(model: DrawnModel, id: number): Promise<ProbeResult[]> {
  const { library } = model;
  const edit = editRow(library, id);
  const own = ownProbes(library, edit);
  const taken = (picture: string | null, prompt: string) =>
    own.some((probe) => probe.picture === picture && probe.prompt === prompt);
  const [without, withIt] = [model.bank(), model.bank(id)];
  const committed = actingRows(library)
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
      drift: driftOf({ kind, expected, unedited: unedited!, before: before!, acting }),
      passes: probePasses(expected, before!, after!),
    });
  }
  return results;
}

const told = ({ probe, owner, unedited, before, after, acting, drift, passes }: ProbeResult) =>
  JSON.stringify([probe.id, probe.kind, owner, unedited, before, after, acting, drift, passes]);

test.each([
  [1, [40, 90, 160]],
  [2, [25, 26, 27, 120]],
])(
  'verdicts are those of a full replay (library %i, thresholds rise at %j)',
  async (seed, brackets) => {
    const { library, model, draw, draft } = await drawnLibrary(seed, brackets);
    let [changed, drifted, entangled] = [0, 0, 0];
    for (let step = 0; step < 160; step++) {
      const id = draft();
      if (step % 11 === 5) {
        const check = await model.check(id);
        const whole = await replay(model, id);
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
      }
      await model.commit(id);
      if (step > 30 && draw(8) === 0) {
        const acting = actingRows(library);
        retireEdit(library, acting[draw(acting.length)]!.id);
      }
    }
    // The libraries are such that there is something to find.
    expect(changed).toBeGreaterThan(3);
    expect(drifted).toBeGreaterThan(3);
    expect(entangled).toBeGreaterThan(0);
  },
  120_000,
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
