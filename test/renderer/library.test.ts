import { describe, expect, it } from 'vitest';
import type { EditFilter, EditSort } from '../../electron/api/contract.ts';
import {
  builtInViews,
  countOf,
  dateField,
  dayBegins,
  filterParts,
  newestFirst,
  sameList,
} from '../../renderer/library/views.ts';
import { visibleRows } from '../../renderer/library/visibleRows.ts';
import { hashOf, placeOf, titleOf } from '../../renderer/state/places.ts';
import { Selection } from '../../renderer/state/selection.svelte.ts';

describe('selecting edits of a list', () => {
  it('names those that were taken one by one', () => {
    const selection = new Selection();
    expect(selection.inList({})).toBeNull();
    selection.toggle(3);
    selection.add([4, 5]);
    selection.toggle(4);
    expect(selection.inList({ text: 'cat' })).toEqual({ edits: [3, 5] });
    expect(selection.count(100)).toBe(2);
    expect([3, 4, 5].map((edit) => selection.has(edit))).toEqual([true, false, true]);
  });

  it('names the filter when all that match were taken, and the few that were let go again', () => {
    const selection = new Selection();
    selection.toggle(3);
    selection.selectAll();
    expect(selection.inList({ text: 'cat' })).toEqual({ filter: { text: 'cat' } });
    expect(selection.count(1284)).toBe(1284);
    selection.toggle(7);
    expect(selection.has(7)).toBe(false);
    expect(selection.has(8)).toBe(true);
    expect(selection.inList({})).toEqual({ filter: {}, except: [7] });
    expect(selection.count(1284)).toBe(1283);
    selection.add([7]);
    expect(selection.inList({})).toEqual({ filter: {} });
    selection.clear();
    expect(selection.inList({})).toBeNull();
  });
});

describe('views', () => {
  it('are the same list whatever the order of what they let through', () => {
    const one: { filter: EditFilter; sort: EditSort } = {
      filter: { status: ['draft', 'stale'], text: 'cat' },
      sort: newestFirst,
    };
    expect(sameList(one, { filter: { text: 'cat', status: ['stale', 'draft'] }, sort: newestFirst })).toBe(
      true,
    );
    expect(sameList(one, { ...one, sort: { ...newestFirst, descending: false } })).toBe(false);
    expect(sameList(one, { ...one, filter: { ...one.filter, text: 'cats' } })).toBe(false);
  });

  it('of every library count by status', () => {
    const edits = { draft: 1, checked: 2, failed: 4, stale: 8, committed: 16, retired: 32 };
    const counts = builtInViews.map(({ name, filter }) => [name, countOf(filter, edits)]);
    expect(Object.fromEntries(counts)).toEqual({
      'All edits': 63,
      'Needs review': 15,
      Committed: 16,
      Retired: 32,
    });
  });

  it('say their filter part by part', () => {
    const filter: EditFilter = {
      status: ['draft', 'failed'],
      tags: ['fruit', 'lime'],
      finding: ['leaks', 'entangled'],
      reach: 'thing',
      model: 'abc',
      committed: { to: dayBegins('2026-03-09', 1) },
      updated: { from: dayBegins('2026-03-01'), to: dayBegins('2026-03-09', 1) },
      text: 'told elsewhere',
    };
    const parts = filterParts(filter, () => 'demo-model');
    const told = Object.fromEntries(parts.map(({ key, value }) => [key, value]));
    expect(told).toMatchObject({
      status: 'Draft or Failed check',
      finding: 'Leaks or Entangled',
      reach: 'This thing',
      tags: 'fruit and lime',
      model: 'demo-model',
      committed: expect.stringMatching(/^to .*2026$/),
    });
    expect(parts).toHaveLength(7);
    expect(told['updated']).toMatch(/1.*2026.*9.*2026/); // the last day is within it
  });

  it('take days as whole days of the reader', () => {
    for (const date of ['2026-03-01', '2026-12-31', '2024-02-29']) {
      expect(dateField(dayBegins(date))).toBe(date);
      expect(dateField(dayBegins(date, 1), 1)).toBe(date);
    }
    expect(Date.parse(dayBegins('2026-11-26', 1))).toBeGreaterThan(Date.parse(dayBegins('2026-11-26')));
    expect(dateField(undefined)).toBe('');
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
