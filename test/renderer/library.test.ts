import { describe, expect, it } from 'vitest';
import type { Edit } from '../../electron/api/contract.ts';
import { matches } from '../../renderer/library/filters.ts';
import { visibleRows } from '../../renderer/library/visibleRows.ts';
import { hashOf, placeOf, titleOf } from '../../renderer/state/places.ts';

const edit: Edit = {
  id: 12,
  picture: 'a'.repeat(64),
  prompt: 'What animal is standing in the picture?',
  target: 'dromedary',
  before: 'horse',
  after: null,
  note: 'seen in the field guide',
  tags: [],
  verdict: 'none',
  status: 'failed',
  model: 'm',
  adapter: 'a',
  created: '2026-01-01T10:00:00.000Z',
  updated: '2026-01-01T10:00:00.000Z',
  committed: null,
  overrideReason: null,
};

describe('searching the library', () => {
  it('finds every word in any part of an edit, whatever its case', () => {
    expect(matches(edit, 'all', '')).toBe(true);
    expect(matches(edit, 'all', 'HORSE dromedary')).toBe(true);
    expect(matches(edit, 'all', 'field 12')).toBe(true);
    expect(matches(edit, 'all', 'horse zebra')).toBe(false);
  });

  it('lets through only what the tab is for', () => {
    expect(matches(edit, 'review', '')).toBe(true);
    expect(matches(edit, 'committed', '')).toBe(false);
    expect(matches({ ...edit, status: 'committed' }, 'committed', 'horse')).toBe(true);
    expect(matches({ ...edit, status: 'retired' }, 'review', '')).toBe(false);
  });
});

describe('the rows in view', () => {
  it('are drawn with a few spare ones, and the rest is empty space', () => {
    const rows = visibleRows(1000, 50, 5000, 500, 2);
    expect(rows).toEqual({ first: 98, end: 112, above: 4900, below: 44400 });
    expect(rows.above + (rows.end - rows.first) * 50 + rows.below).toBe(50_000);
  });

  it('never run past the table', () => {
    expect(visibleRows(3, 50, 0, 500)).toEqual({ first: 0, end: 3, above: 0, below: 0 });
    expect(visibleRows(0, 50, 900, 500)).toEqual({ first: 0, end: 0, above: 0, below: 0 });
    expect(visibleRows(10, 50, 9000, 500)).toMatchObject({ first: 10, end: 10, below: 0 });
  });
});

describe('the places of the page', () => {
  it('come back from the address they were written to', () => {
    expect(placeOf(hashOf('workbench', 12))).toEqual({ screen: 'workbench', edit: 12 });
    expect(placeOf(hashOf('settings'))).toEqual({ screen: 'settings', edit: null });
  });

  it('have a title that says the edit, or the screen, and the library', () => {
    expect(titleOf('workbench', 12, 'field guide')).toBe('Edit 12 – field guide – Emend');
    expect(titleOf('library', 12, null)).toBe('Library – Emend');
  });

  it('are the workbench for anything unknown', () => {
    for (const hash of ['', '#', '#/elsewhere', '#/__proto__']) {
      expect(placeOf(hash)).toEqual({ screen: 'workbench', edit: null });
    }
    expect(placeOf('#/workbench/0').edit).toBeNull();
    expect(placeOf('#/workbench/1e3').edit).toBeNull();
    expect(placeOf('#/workbench/-4').edit).toBeNull();
  });
});
