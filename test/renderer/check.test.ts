import { describe, expect, it } from 'vitest';
import type { Check, Edit } from '../../electron/api/contract.ts';
import {
  checkSentence,
  clock,
  dotsFor,
  groupVerdict,
  percent,
  whyStale,
} from '../../renderer/workbench/checkTelling.ts';
import { findingWords } from '../../renderer/workbench/findings.ts';
import { kindOfProbe } from '../../renderer/workbench/probeKinds.ts';
import { routingWords } from '../../renderer/workbench/routingWords.ts';

const picture = 'a'.repeat(64);
const other = 'b'.repeat(64);
const edit: Edit = {
  id: 7,
  picture,
  prompt: 'What animal is this?',
  target: 'dromedary',
  before: 'horse',
  after: null,
  note: '',
  reach: 'picture',
  finding: null,
  tags: [],
  verdict: 'none',
  status: 'checked',
  model: 'm1',
  adapter: 'a1',
  created: '2026-01-01T10:00:00.000Z',
  updated: '2026-01-01T10:00:00.000Z',
  committed: null,
  overrideReason: null,
};
const check: Check = {
  id: 1,
  edit: 7,
  supersede: null,
  finished: '2026-01-01T12:00:00.000Z',
  seconds: 4,
  verdict: 'passes',
  finding: { kind: 'holds', edit: null },
  fresh: false,
  staleBecause: ['edit'],
  staleBy: [],
  unchanged: 0,
  everywhere: false,
  groups: [],
  results: [],
};
describe('a row of dots', () => {
  it('has one dot a probe while they fit', () => {
    expect(dotsFor(3, 4)).toEqual({ passing: 3, failing: 1 });
    expect(dotsFor(0, 0)).toEqual({ passing: 0, failing: 0 });
  });

  it('never hides a single failure, nor a single success', () => {
    expect(dotsFor(999, 1000, 10)).toEqual({ passing: 9, failing: 1 });
    expect(dotsFor(1, 1000, 10)).toEqual({ passing: 1, failing: 9 });
    expect(dotsFor(1000, 1000, 10)).toEqual({ passing: 10, failing: 0 });
    expect(dotsFor(500, 1000, 10)).toEqual({ passing: 5, failing: 5 });
  });
});

describe('the words of a check', () => {
  it('say the share that was missed', () => {
    const group = { kind: 'same-picture', passed: 10, total: 12, required: 0.95, passes: false } as const;
    expect(groupVerdict(group)).toBe('below 95 %');
    expect(groupVerdict({ ...group, passes: true })).toBe('passes');
    expect(groupVerdict({ ...group, kind: 'committed', passed: 12, passes: true })).toBe('none changed');
    expect(groupVerdict({ ...group, kind: 'committed', passes: true })).toBe('passes');
    expect(groupVerdict({ ...group, passed: 0, total: 0, passes: true })).toBe('none');
    expect(percent(0.975)).toBe('97.5 %');
    expect(percent(0.29)).toBe('29 %');
  });

  it('count the committed edits it replayed', () => {
    const now = new Date(check.finished);
    expect(checkSentence({ ...check, seconds: 4.14 }, now)).toMatch(/^Check of \d\d:\d\d, 4\.1 s · passes$/);
    expect(checkSentence({ ...check, verdict: 'fails' }, now)).toContain('· fails');
  });

  it('give the day of a moment that is not today', () => {
    const day = new Date(2026, 2, 5, 9, 7);
    expect(clock(day.toISOString(), day)).toBe('09:07');
    expect(clock(day.toISOString(), new Date(2026, 2, 6))).toMatch(/5.*09:07$/);
    expect(clock(day.toISOString(), new Date(2027, 2, 6))).toContain('2026');
  });
});

describe('why a check needs running again', () => {
  it('names the edits that made it so, where they are known', () => {
    expect(whyStale({ staleBecause: ['committed-edits'], staleBy: [12] })).toBe(
      'Since then, edit 12 came to act, or no longer does, on one of its probes.',
    );
    expect(whyStale({ staleBecause: ['committed-edits'], staleBy: [12, 15] })).toContain('edits 12 and 15');
  });

  it('names everything that differs, in one sentence', () => {
    expect(whyStale({ staleBecause: [], staleBy: [] })).toBe('');
    expect(whyStale({ staleBecause: ['committed-edits'], staleBy: [] })).toBe(
      'Since then, the committed edits changed.',
    );
    expect(whyStale({ staleBecause: ['model', 'adapter', 'probes'], staleBy: [] })).toBe(
      'Since then, another model is open than it was run on, another adapter is loaded than it was run with, and probes were added or removed.',
    );
  });
});

describe('the kind of a probe', () => {
  it('follows from what it must do and how it differs from the edit', () => {
    const kind = (wish: 'must-change' | 'must-not-change', where: string | null, prompt: string) =>
      kindOfProbe(wish, edit, { picture: where, prompt });
    expect(kind('must-change', picture, 'Which animal?')).toBe('text-generality');
    expect(kind('must-change', other, edit.prompt)).toBe('image-generality');
    expect(kind('must-change', other, 'Which animal?')).toBe('image-generality');
    expect(kind('must-not-change', null, 'Capital of France?')).toBe('text-locality');
    expect(kind('must-not-change', picture, 'How many?')).toBe('same-picture');
    expect(kind('must-not-change', other, ` ${edit.prompt.toUpperCase()}`)).toBe('same-question');
    expect(kind('must-not-change', other, 'How many?')).toBe('image-locality');
  });

  it('is none for the edit itself, or without a picture that should change', () => {
    expect(kindOfProbe('must-change', edit, { picture, prompt: edit.prompt })).toBeNull();
    expect(kindOfProbe('must-not-change', edit, { picture, prompt: `${edit.prompt} ` })).toBeNull();
    expect(kindOfProbe('must-change', edit, { picture: null, prompt: 'Which?' })).toBeNull();
  });
});

describe('what the scope decided, in words', () => {
  const routing = {
    ...{ edit: 7, closest: 7, score: 5.934, threshold: 2.71, margin: 3.224 },
    matches: [],
  };

  it('says which edit acted, and how sure the scope was', () => {
    expect(routingWords(routing)).toBe('edit 7 acted · score 5.9, 2.7 needed');
    expect(routingWords(routing, 7)).toBe('this edit acted · score 5.9, 2.7 needed');
  });

  it('says how far the closest was when none acted', () => {
    expect(routingWords({ ...routing, edit: null, score: 0.4 })).toBe(
      'no edit acted · closest edit 7, score 0.4, 2.7 needed',
    );
    const nothing = { edit: null, closest: null, score: null, threshold: null, margin: null, matches: [] };
    expect(routingWords(nothing)).toBe('no edit acted');
    expect(routingWords(null)).toBe('');
  });
});

describe('a finding', () => {
  it('names the other edit it is entangled with', () => {
    expect(findingWords({ kind: 'entangled', edit: 12 }).name).toBe('Entangled with edit 12');
    expect(findingWords({ kind: 'holds', edit: null })).toMatchObject({ name: 'Holds', tone: 'good' });
    expect(findingWords({ kind: 'under-generalises', edit: null }).name).toBe('Under-generalises');
  });
});
