/**
 * @file Batched visual contributions against the whole attention run again for every token and draw, measured in turns at
 * the demo model's sizes. Run it with `node test/attribution/speed.bench.ts`.
 */
import {
  codePerturbation,
  paperPerturbation,
  standardNormal,
  VisualAttribution,
} from '../../electron/attribution/visualContribution.ts';
import { randomDecoder, wholeAttention } from './support.ts';

const hidden = 160;
const rows = 125;
const decoder = randomDecoder({ hidden, heads: 5 });
const states = standardNormal(rows * hidden, 1);
const imageRows = Array.from({ length: 100 }, (_, row) => 1 + row);
const input = { hidden: [states], imageRows, lastPromptRow: rows - 1 };
const milliseconds = async (work: () => Promise<unknown>) => {
  const start = performance.now();
  await work();
  return performance.now() - start;
};

const attention = await wholeAttention(decoder, 1);
for (const perturbation of [paperPerturbation, codePerturbation]) {
  const attribution = await VisualAttribution.compile(decoder, [1], perturbation);
  const batched: number[] = [];
  const single: number[] = [];
  for (let round = 0; round < 6; round++) {
    batched.push(await milliseconds(() => attribution.run(input, { kind: 'seed', seed: round })));
    single.push(
      await milliseconds(async () => {
        for (let run = 0; run < 100 * perturbation.draws; run++) await attention.run(states);
      }),
    );
  }
  // The fastest round: other work on the machine only slows rounds down.
  const [best, bestSingle] = [Math.min(...batched), Math.min(...single)];
  const ratio = (bestSingle / best).toFixed(0);
  console.log(
    `${perturbation.variant}: ${best.toFixed(1)} ms batched, ${bestSingle.toFixed(0)} ms one by one, ${ratio}×`,
  );
  await attribution.dispose();
}
await attention.dispose();
