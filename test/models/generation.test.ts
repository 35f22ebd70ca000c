/** @file Answers: the distribution behind every token, sampling, where they end, and how they are stopped. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { argmax, generate, probabilities } from '../../electron/models/generation.ts';
import { type Prefill, VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { fixture } from '../support/fixtures.ts';

interface Case {
  input_ids_prompt: number[];
  greedy_ids: number[];
  last_logits_top5: { ids: number[]; values: number[] };
}

let cases: Record<string, Case>;
let model: VisionLanguageModel;
let prefill: Prefill;
const folders: string[] = [];

/** The reference question without a picture, up to its last prompt token. */
async function asked(one: VisionLanguageModel): Promise<Prefill> {
  const ids = cases['text_loc']!.input_ids_prompt;
  return one.prefill(await one.lay({ ids, pictures: [], lastPromptToken: ids.length - 1 }, null));
}

beforeAll(async () => {
  cases = JSON.parse(await readFile(fixture('llava_tiny/forward.json'), 'utf8'));
  model = await VisionLanguageModel.open(fixture('checkpoints/llava_tiny'), { providers: ['cpu'] });
  prefill = await asked(model);
});
afterAll(async () => {
  await model.dispose();
  for (const folder of folders) await rm(folder, { recursive: true });
});

describe('the distribution', () => {
  test('is the softmax, also of logits whose exponentials are infinite or zero', () => {
    // e⁰, e¹, e² over their sum
    const expected = [0.09003057317038046, 0.24472847105479767, 0.6652409557748219];
    for (const shift of [0, 5000, -5000]) {
      const found = probabilities([shift, 1 + shift, 2 + shift]);
      for (const [i, value] of expected.entries()) expect(found[i]).toBeCloseTo(value, 12);
    }
  });

  test('has its largest where argmax says, the first of equals', () => {
    expect(argmax([3, 1, 2])).toBe(0);
    expect(argmax([1, 2, 2])).toBe(1);
    expect(argmax([-3, -1, -2])).toBe(1);
  });

  test('gives every token its alternatives, most probable first, as the reference has them', async () => {
    const { ids, values } = cases['text_loc']!.last_logits_top5;
    const { tokens } = await generate(model, prefill, { maxNewTokens: 1, alternatives: 5 });
    const [token] = tokens;
    expect(token!.alternatives.map(({ id }) => id)).toEqual(ids);
    expect(token!.probability).toBe(token!.alternatives[0]!.probability);
    for (const [i, { probability }] of token!.alternatives.entries()) {
      expect(Math.log(probability / token!.probability)).toBeCloseTo(values[i]! - values[0]!, 3);
    }
    const all = await generate(model, prefill, { maxNewTokens: 1, alternatives: 10_000 });
    expect(all.tokens[0]!.alternatives.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(
      1,
      9,
    );
  });
});

describe('sampling', () => {
  const first = async (temperature: number, topP: number, seed: number) =>
    (
      await generate(model, prefill, {
        maxNewTokens: 1,
        alternatives: 0,
        sampling: { temperature, topP, seed },
      })
    ).ids[0]!;

  test('at temperature 0, or from a mass that one token has, is greedy', async () => {
    const [greedy] = cases['text_loc']!.greedy_ids;
    expect(await first(0, 1, 1)).toBe(greedy);
    for (let seed = 0; seed < 20; seed++) expect(await first(5, 1e-6, seed)).toBe(greedy);
  });

  test('takes each token as often as its probability says, at the temperature given', async () => {
    const [token] = (await generate(model, prefill, { maxNewTokens: 1, alternatives: 10_000 })).tokens;
    const temperature = 0.7;
    const logits = token!.alternatives.map(({ probability }) => Math.log(probability) / temperature);
    const expected = probabilities(logits)[0]!;
    const draws = 400;
    let hits = 0;
    for (let seed = 0; seed < draws; seed++) if ((await first(temperature, 1, seed)) === token!.id) hits++;
    const deviation = Math.sqrt((expected * (1 - expected)) / draws);
    expect(Math.abs(hits / draws - expected)).toBeLessThan(4 * deviation);
  });

  test('stays within the most probable tokens of the mass given, and uses all of them', async () => {
    const [token] = (await generate(model, prefill, { maxNewTokens: 1, alternatives: 3 })).tokens;
    const [one, two, three] = token!.alternatives;
    // Just more than the first two: the third is needed, the fourth is not.
    const mass = one!.probability + two!.probability + three!.probability / 2;
    const seen = new Set<number>();
    for (let seed = 0; seed < 200; seed++) seen.add(await first(1, mass, seed));
    expect([...seen].sort()).toEqual([one!.id, two!.id, three!.id].sort());
  });

  test('is the same for the same seed and another for another', async () => {
    const answer = async (seed: number) =>
      (await generate(model, prefill, { maxNewTokens: 8, sampling: { temperature: 2, topP: 1, seed } })).ids;
    expect(await answer(3)).toEqual(await answer(3));
    expect(await answer(4)).not.toEqual(await answer(3));
  });
});

describe('an answer ends', () => {
  test('after as many tokens as were asked for, told as they come', async () => {
    const told: number[] = [];
    const answer = await generate(model, prefill, { maxNewTokens: 5, onToken: ({ id }) => told.push(id) });
    expect(answer).toMatchObject({ ids: cases['text_loc']!.greedy_ids.slice(0, 5), ended: 'length' });
    expect(told).toEqual(answer.ids);
    expect(answer.text).toBe(model.tokenizer.decode(answer.ids).trim());
    expect(await generate(model, prefill, { maxNewTokens: 0 })).toMatchObject({ ids: [], ended: 'length' });
  });

  test('at a stop token, which is told with its probability and is no part of the answer', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'emend-generation-'));
    folders.push(folder);
    await cp(fixture('checkpoints/llava_tiny'), folder, { recursive: true });
    const greedy = cases['text_loc']!.greedy_ids;
    await writeFile(join(folder, 'generation_config.json'), JSON.stringify({ eos_token_id: greedy[2] }));
    const stopping = await VisionLanguageModel.open(folder, { providers: ['cpu'] });
    try {
      const told: number[] = [];
      const answer = await generate(stopping, await asked(stopping), {
        maxNewTokens: 8,
        onToken: ({ id }) => told.push(id),
      });
      expect(answer).toMatchObject({ ids: greedy.slice(0, 2), ended: 'stop-token' });
      expect(told).toEqual(greedy.slice(0, 2));
      expect(answer.tokens.map(({ id }) => id)).toEqual(greedy.slice(0, 3));
    } finally {
      await stopping.dispose();
    }
  });

  test('when it is stopped, before the next token', async () => {
    const controller = new AbortController();
    const told: number[] = [];
    const stopped = generate(model, prefill, {
      maxNewTokens: 8,
      signal: controller.signal,
      onToken: ({ id }) => {
        told.push(id);
        if (told.length === 2) controller.abort();
      },
    });
    await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
    expect(told).toHaveLength(2);
  });
});

test('keys and values of an answer’s tokens are let go as it goes on, those of the prompt are kept for the next answer', async () => {
  const next = vi.spyOn(model, 'next');
  try {
    const first = await generate(model, prefill, { maxNewTokens: 5 });
    const made = await Promise.all(
      next.mock.results.map(({ value }) => value as ReturnType<typeof model.next>),
    );
    expect(made).toHaveLength(4);
    const held = made.flatMap(({ caches }) => caches.flatMap(({ values }) => Object.values(values)));
    expect(held.length).toBeGreaterThan(0);
    for (const value of held) expect(() => value.data).toThrow(/disposed/);
    expect((await generate(model, prefill, { maxNewTokens: 5 })).ids).toEqual(first.ids);
  } finally {
    next.mockRestore();
  }
});
