/** @file Checks where edits act everywhere, together: what is asked, under which edits, and what a commit or a retirement means for others. */
import { expect, test } from 'vitest';
import { everywhereScope } from '../../electron/editors/scope/everywhere.ts';
import { keepActing } from '../../electron/library/acting.ts';
import { rememberAnswers } from '../../electron/library/answers.ts';
import { latestCheck, planCheck, recordCheck } from '../../electron/library/checks.ts';
import { commitEdit, retireEdit } from '../../electron/library/edits.ts';
import type { Library } from '../../electron/library/library.ts';
import {
  decideEverywhere,
  resultOf,
  signalName,
  type WantedAnswer,
  wantedAnswers,
} from '../../electron/library/localCheck.ts';
import { editRow } from '../../electron/library/rows.ts';
import { allAct, thresholdSteps } from '../../electron/library/scopes.ts';
import { addEdit, makeLibrary } from './support.ts';

function everywhere(library: Library): void {
  const { fingerprint, candidates, threshold } = everywhereScope('everywhere');
  const thresholds = thresholdSteps({ threshold });
  keepActing(library, { model: 'm', adapter: 'a' }, 'plain', { fingerprint, candidates, thresholds });
}

/** Checks an edit, answers said by the edits that act. */
function check(library: Library, id: number, say: (wanted: WantedAnswer) => string) {
  const plan = planCheck(library, id);
  const decided = library.read(() => decideEverywhere(library, plan));
  const wanted = wantedAnswers(library, decided.probes);
  const answers = wanted.map((one) => ({
    ...{ picture: one.picture ?? '', prompt: one.prompt, text: say(one) },
    signal: signalName(library, one.edits),
  }));
  library.write(() => rememberAnswers(library, answers, plan.maxNewTokens));
  const results = decided.probes.map((probe) => resultOf(library, probe));
  const { unchanged, watched } = decided;
  const found = recordCheck(library, plan, {
    ...{ results, unchanged, watched, everywhere: true, seconds: 0, editor: 'an editor' },
  });
  return { found, wanted };
}

/** The last edit that acts says its target wherever its picture is; nothing else changes. */
const say = (library: Library) => (wanted: WantedAnswer) => {
  const acting = wanted.edits
    .map((id) => editRow(library, id))
    .findLast(({ picture }) => picture === wanted.picture);
  return acting?.target ?? `nothing about ${wanted.prompt}`;
};

test('every probe of every committed edit is asked, of all that act with the new one', async () => {
  const library = makeLibrary();
  everywhere(library);
  expect(allAct(library)).toBe(true);
  const one = await addEdit(library, { prompt: 'what is it?', target: 'fox', shade: 1 });
  const { found: first, wanted } = check(library, one.id, say(library));
  expect(first).toMatchObject({ everywhere: true, verdict: 'passes', unchanged: 0 });
  expect(new Set(wanted.map(({ edits }) => edits.join()))).toEqual(new Set(['', String(one.id)]));
  commitEdit(library, one.id);

  const two = await addEdit(library, { prompt: 'what is that?', target: 'owl', shade: 2 });
  const { found, wanted: asked } = check(library, two.id, say(library));
  const both = `${one.id},${two.id}`;
  expect(new Set(asked.map(({ edits }) => edits.join()))).toEqual(new Set(['', String(one.id), both]));
  expect(found.results.filter(({ owner }) => owner === one.id).map(({ after }) => after)).toEqual(['fox']);
  expect(found.verdict).toBe('passes');
});

test('an edit that changes what another committed one answers fails, and drift of several is told without a name', async () => {
  const library = makeLibrary();
  everywhere(library);
  const one = await addEdit(library, { prompt: 'what is it?', target: 'fox', shade: 1 });
  check(library, one.id, say(library));
  commitEdit(library, one.id);
  const two = await addEdit(library, { prompt: 'what is that?', target: 'owl', shade: 2 });
  const { found } = check(library, two.id, ({ edits, prompt }) =>
    edits.length === 0 ? `nothing about ${prompt}` : edits.at(-1) === two.id ? 'owl' : 'fox',
  );
  expect(found.verdict).toBe('fails');
  expect(found.results.find(({ owner }) => owner === one.id)).toMatchObject({ passes: false, after: 'owl' });
});

test('what is committed or retired makes every other check stale, and its own not', async () => {
  const library = makeLibrary();
  everywhere(library);
  const edits = [];
  for (const shade of [1, 2, 3])
    edits.push(await addEdit(library, { prompt: `what is ${shade}?`, target: 'fox', shade }));
  const [one, two, three] = edits.map(({ id }) => id) as [number, number, number];
  const fresh = (id: number) => latestCheck(library, editRow(library, id))!;
  for (const id of [one, two, three]) check(library, id, say(library));
  commitEdit(library, one);
  expect(fresh(one).fresh).toBe(true);
  expect(fresh(two)).toMatchObject({ fresh: false, staleBecause: ['committed-edits'], staleBy: [one] });
  check(library, two, say(library));
  expect(fresh(two).fresh).toBe(true);
  commitEdit(library, two);
  check(library, three, say(library));
  expect(fresh(three).fresh).toBe(true);
  retireEdit(library, one, 'no longer needed');
  expect(fresh(three)).toMatchObject({ fresh: false, staleBecause: ['committed-edits'] });
  expect(fresh(two).fresh).toBe(false);
});
