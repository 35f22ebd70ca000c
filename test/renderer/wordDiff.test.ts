import { describe, expect, it } from 'vitest';
import { diffWords, sameAnswer } from '../../renderer/workbench/wordDiff.ts';

const changed = (parts: ReadonlyArray<{ text: string; changed: boolean }>) =>
  parts.filter((part) => part.changed).map((part) => part.text.trim());
const whole = (parts: ReadonlyArray<{ text: string }>) => parts.map((part) => part.text).join('');

describe('what changed between two answers', () => {
  it('marks only the words that differ', () => {
    const { before, after } = diffWords('a horse stands by the tree', 'a dromedary stands by the tree');
    expect(changed(before)).toEqual(['horse']);
    expect(changed(after)).toEqual(['dromedary']);
  });

  it('marks an inserted word on one side only', () => {
    const { before, after } = diffWords('two dogs', 'two brown dogs');
    expect(changed(before)).toEqual([]);
    expect(changed(after)).toEqual(['brown']);
  });

  it('keeps every character of both answers', () => {
    const one = '  a  horse,\nand a cow ';
    const other = 'a cow and\ta horse';
    const { before, after } = diffWords(one, other);
    expect(whole(before)).toBe(one);
    expect(whole(after)).toBe(other);
  });

  it('marks nothing between equal answers, and everything against an empty one', () => {
    expect(changed(diffWords('the same', 'the same').after)).toEqual([]);
    expect(changed(diffWords('', 'all new').after)).toEqual(['all new']);
    expect(diffWords('', '').before).toEqual([]);
  });

  it('compares very long answers as wholes instead of filling the memory', () => {
    const long = 'word '.repeat(5000);
    const { before, after } = diffWords(long, `${long}end`);
    expect(before).toEqual([{ text: long, changed: true }]);
    expect(after[0]?.changed).toBe(true);
  });
});

describe('sameAnswer', () => {
  it('disregards case, white space and a final full stop', () => {
    expect(sameAnswer(' Dromedary. ', 'dromedary')).toBe(true);
    expect(sameAnswer('two  dogs', 'two dogs')).toBe(true);
  });

  it('tells different answers apart', () => {
    expect(sameAnswer('camel', 'dromedary')).toBe(false);
    expect(sameAnswer('', 'dromedary')).toBe(false);
  });
});
