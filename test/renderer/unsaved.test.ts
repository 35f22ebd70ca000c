import { describe, expect, it } from 'vitest';
import { UnsavedFields } from '../../renderer/state/unsaved.ts';

/** A browser's storage, in memory. */
function storage(): Storage {
  const items = new Map<string, string>();
  return {
    get length() {
      return items.size;
    },
    key: (at) => [...items.keys()][at] ?? null,
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
    clear: () => items.clear(),
  };
}
const fields = (target: string) => ({ picture: null, prompt: 'what?', target, reach: 'thing' as const });

describe('what was typed and not saved', () => {
  it('is kept apart by library, edit and new edit, until it is forgotten', () => {
    const unsaved = new UnsavedFields(storage());
    unsaved.keep('a', 1, fields('one'));
    unsaved.keep('a', null, {
      picture: 'f'.repeat(64),
      prompt: '',
      target: 'new',
      reach: 'picture',
    });
    unsaved.keep('b', 1, fields('other'));
    expect(unsaved.read('a', 1)).toEqual(fields('one'));
    expect(unsaved.read('a', null)).toEqual({
      picture: 'f'.repeat(64),
      prompt: '',
      target: 'new',
      reach: 'picture',
    });
    expect(unsaved.read('b', 1)).toEqual(fields('other'));
    expect(unsaved.read('b', null)).toBeNull();
    unsaved.forget('a', 1);
    expect(unsaved.read('a', 1)).toBeNull();
    expect(unsaved.read('b', 1)).toEqual(fields('other'));
  });

  it('of edits not touched for longest goes first, and what others stored stays', () => {
    const kept = storage();
    kept.setItem('emend.theme', 'dark');
    const unsaved = new UnsavedFields(kept);
    for (let edit = 1; edit <= 51; edit++) unsaved.keep('a', edit, fields(String(edit)));
    expect(unsaved.read('a', 1)).toBeNull();
    expect(unsaved.read('a', 51)).toEqual(fields('51'));
    expect(kept.getItem('emend.theme')).toBe('dark');
  });

  it('is none where the storage holds something else', () => {
    const kept = storage();
    const unsaved = new UnsavedFields(kept);
    unsaved.keep('a', 1, fields('one'));
    for (const broken of ['', '{', 'null', '{"prompt":1,"target":2}']) {
      kept.setItem(kept.key(0)!, broken);
      expect(unsaved.read('a', 1)).toBeNull();
    }
  });
});
