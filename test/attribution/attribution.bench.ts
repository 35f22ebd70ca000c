/**
 * @file Visual contribution of all rows in one batched pass against one token at a time, at the layer geometry of LLaVA-1.5-7B (hidden
 * 4096, 32 heads, 576 visual rows) and of the demo model: `npm run bench -- attribution`. Two ways to go one at a time: the whole
 * attention again, as eq. 8 reads; and, as nobody published it, only the perturbed row's key and value with all else kept. The second
 * is a batch of one through our own code. At LLaVA's size single tokens are timed on a sample, in turns with the pass.
 */

import { PerturbedAttention } from '../../electron/attribution/perturbedAttention.ts';
import {
  paperPerturbation,
  perturbedItem,
  standardDeviation,
  standardNormal,
  VisualAttribution,
} from '../../electron/attribution/visualContribution.ts';
import { randomDecoder, wholeAttention } from './support.ts';

const geometries = [
  { name: 'demo model', hidden: 160, heads: 5, side: 10, text: 24, draws: 10, rounds: 3, sample: 40 },
  { name: 'LLaVA-1.5-7B', hidden: 4096, heads: 32, side: 24, text: 40, draws: 2, rounds: 2, sample: 3 },
];

const milliseconds = async (work: () => Promise<unknown>) => {
  const start = performance.now();
  await work();
  return performance.now() - start;
};

for (const { name, hidden, heads, side, text, draws, rounds, sample } of geometries) {
  // One layer, and an MLP of no size to speak of: only attention is timed.
  const decoder = randomDecoder({ layers: 1, hidden, heads, intermediate: 8 }, 1);
  const visual = side * side;
  const rows = visual + text;
  const states = standardNormal(rows * hidden, 1);
  const imageRows = Array.from({ length: visual }, (_, row) => 1 + row);
  const input = { hidden: [states], imageRows, lastPromptRow: rows - 1 };
  const grid = { height: side, width: side };
  const perturbation = { ...paperPerturbation, draws };
  const noise = { kind: 'seed', seed: 1 } as const;
  const drawn = standardNormal(draws * visual * hidden, noise.seed);
  const sigma = 3 * standardDeviation(states, imageRows, hidden);

  const attribution = await VisualAttribution.compile(decoder, [0], perturbation);
  const single = await PerturbedAttention.compile(decoder, [0], 'layer-input', 'row');
  const whole = await wholeAttention(decoder, 0);
  const before = await whole.run(states);
  let batched = Number.POSITIVE_INFINITY;
  let [again, kept] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  let apart = 0;
  for (let round = 0; round < rounds; round++) {
    let perDraw = new Float32Array();
    const pass = await milliseconds(async () => {
      perDraw = (await attribution.run(input, noise, grid))[0]!.perDraw as Float32Array<ArrayBuffer>;
    });
    batched = Math.min(batched, pass);
    for (let at = 0; at < sample; at++) {
      const cell = Math.floor(((at + 0.5) / sample) * visual);
      const moved = states.slice();
      const row = imageRows[cell]!;
      for (let i = 0; i < hidden; i++) moved[row * hidden + i]! += sigma * drawn[cell * hidden + i]!;
      let after = new Float32Array();
      again = Math.min(
        again,
        await milliseconds(async () => {
          after = (await whole.run(moved)) as Float32Array<ArrayBuffer>;
        }),
      );
      let [dot, a, b] = [0, 0, 0];
      for (let i = 0; i < hidden; i++) {
        dot += before[i]! * after[i]!;
        a += before[i]! ** 2;
        b += after[i]! ** 2;
      }
      apart = Math.max(apart, Math.abs(perDraw[cell * draws]! - 0.5 * (1 - dot / Math.sqrt(a * b))));
      const item = perturbedItem(input, [cell], grid, { ...perturbation, draws: 1 }, noise, hidden);
      kept = Math.min(kept, await milliseconds(() => single.run([item])));
    }
  }
  const all = visual * draws;
  console.log(
    `${name}: ${visual} rows × ${draws} draws at one layer in ${(batched / 1000).toFixed(2)} s; the whole attention again for each ${((again * all) / 1000).toFixed(0)} s, ${((again * all) / batched).toFixed(0)} times; one at a time through the same code ${((kept * all) / 1000).toFixed(0)} s, ${((kept * all) / batched).toFixed(0)} times; results at most ${apart.toExponential(1)} apart (fastest of ${rounds * sample} single tokens, of ${rounds} passes)`,
  );
  await attribution.dispose();
  await single.dispose();
  await whole.dispose();
}
