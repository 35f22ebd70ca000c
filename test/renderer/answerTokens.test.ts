import { describe, expect, it } from 'vitest';
import { firstDifference, tokenLabel, tokenSpans } from '../../renderer/workbench/answerTokens.ts';

const tokens = (...texts: string[]) => texts.map((text) => ({ text }));

describe('the tokens of an answer in its text', () => {
  it('finds each token, with the white space between them', () => {
    expect(tokenSpans('a red bus', tokens('a', ' red', ' bus'))).toEqual([
      { text: 'a', token: 0 },
      { text: ' ', token: null },
      { text: 'red', token: 1 },
      { text: ' ', token: null },
      { text: 'bus', token: 2 },
    ]);
  });

  it('keeps word pieces apart', () => {
    expect(tokenSpans('dromedary', tokens('drom', 'edary'))).toEqual([
      { text: 'drom', token: 0 },
      { text: 'edary', token: 1 },
    ]);
  });

  it('passes over tokens that are not in the text, and never loses text', () => {
    const spans = tokenSpans('hot dog', tokens('hot', '</s>', '\n', '�'));
    expect(spans).toEqual([
      { text: 'hot', token: 0 },
      { text: ' dog', token: null },
    ]);
  });

  it('does not take a later word for a token that left no trace', () => {
    const spans = tokenSpans('one two one', tokens('two', 'one'));
    expect(spans.map((span) => span.text).join('')).toBe('one two one');
    expect(spans[0]).toEqual({ text: 'one', token: 1 });
  });

  it('goes on after characters that several byte tokens wrote together', () => {
    expect(tokenSpans('café noir', tokens('caf', '<0xC3>', '<0xA9>', ' noir'))).toEqual([
      { text: 'caf', token: 0 },
      { text: 'é ', token: null },
      { text: 'noir', token: 3 },
    ]);
  });

  it('points at the first word that differs, in each answer', () => {
    const before = { text: 'a horse by a tree', tokens: tokens('a', ' horse', ' by', ' a', ' tree') };
    const after = {
      text: 'A dromedary by a bush',
      tokens: tokens('A', ' drom', 'edary', ' by', ' a', ' bush'),
    };
    expect(firstDifference(before, after)).toEqual({ before: 1, after: 1 });
    const later = { text: 'a horse by a lake', tokens: tokens('a', ' horse', ' by', ' a', ' la', 'ke') };
    expect(firstDifference(before, later)).toEqual({ before: 4, after: 4 });
    expect(firstDifference(before, before)).toEqual({ before: 0, after: 0 });
  });

  it('points at the token that ended an answer, where the other goes on', () => {
    const short = { text: 'a horse', tokens: tokens('a', ' horse', '</s>') };
    const long = { text: 'a horse by a tree', tokens: tokens('a', ' horse', ' by', ' a', ' tree', '</s>') };
    expect(firstDifference(short, long)).toEqual({ before: 2, after: 2 });
    expect(firstDifference(short, { text: '', tokens: [] })).toEqual({ before: 0, after: 0 });
  });

  it('labels white space and nothing visibly', () => {
    expect(tokenLabel(' ')).toBe('␣');
    expect(tokenLabel('\n')).toBe('↵');
    expect(tokenLabel('')).toBe('∅');
    expect(tokenLabel(' camel')).toBe('camel');
  });
});
