/**
 * @file How well maps agree with where things lie, on scenes of the demo world, which say so: the influence map of an adapter
 * (the demo adapter, or those named: `npm run bench -- maps ADAPTER…`) and visual contribution by layer. Edits of a draw of its own, or of
 * another (`--seed 22`), that are about a thing in the picture. A cell is on the thing where the thing covers at least a quarter of it.
 */
import { parseArgs } from 'node:util';
import { layersAfterEdit } from '../../electron/attribution/influenceTarget.ts';
import { agreement, type MapAgreement } from '../../electron/attribution/pointing.ts';
import { PictureAttribution, paperPerturbation } from '../../electron/attribution/visualContribution.ts';
import { type EditingRecord, editingRecord } from '../../electron/demo/editingSet.ts';
import { patchOwners, scenePng } from '../../electron/demo/world/render.ts';
import type { Scene } from '../../electron/demo/world/scene.ts';
import { loadSprites } from '../../electron/demo/world/sprites.ts';
import { OpenModel } from '../../electron/engine/openModel.ts';

const EDITS = 100;
const FINE = 4;

await loadSprites();
const { values, positionals: named } = parseArgs({
  args: process.argv.slice(3),
  options: { seed: { type: 'string', default: '21' } },
  allowPositionals: true,
});
const SEED = Number(values.seed);
for (const adapter of named.length > 0 ? named : ['resources/demo-adapter']) await measure(adapter);

/** Which cells of a grid of `side` × `side` show the object of this name. */
function cellsOf(scene: Scene, name: string, side: number): boolean[] {
  const owners = patchOwners(scene, side * FINE);
  const count = new Uint8Array(side * side);
  for (const [at, owner] of owners.entries()) {
    const [row, column] = [Math.floor(at / (side * FINE)), at % (side * FINE)];
    const cell = Math.floor(row / FINE) * side + Math.floor(column / FINE);
    if (owner >= 0 && scene.objects[owner]!.name === name) count[cell]!++;
  }
  return Array.from(count, (covered) => covered >= (FINE * FINE) / 4);
}

function told(label: string, found: readonly MapAgreement[]): void {
  const mean = (value: (one: MapAgreement) => number) =>
    (100 * found.reduce((sum, one) => sum + value(one), 0)) / found.length;
  const cell = (value: number) => `${value.toFixed(1)} %`.padStart(10);
  console.log(
    `${label.padEnd(44)}${cell(mean(({ share }) => share))}${cell(mean(({ points }) => Number(points)))}${cell(mean(({ area }) => area))}${String(found.length).padStart(7)}`,
  );
}

async function measure(adapter: string): Promise<void> {
  const model = await OpenModel.open(
    { path: 'resources/demo-model', adapter, providers: ['cpu'], template: 'plain' },
    { signal: new AbortController().signal, send: () => {} },
  );
  const { edited } = model;
  const { decoder } = edited.model;
  const side = 10;
  const layers = Array.from({ length: decoder.layers }, (_, layer) => layer);
  const picture = await PictureAttribution.compile(decoder, layers, { ...paperPerturbation, draws: 3 });
  const influence: Record<string, MapAgreement[]> = { own: [], 'other style': [] };
  const kinds: Record<string, MapAgreement[]> = {};
  const contribution = layers.map((): MapAgreement[] => []);
  const high = layersAfterEdit(edited.editor!.cuts.at(-1)!, decoder.layers);
  const taught: MapAgreement[] = [];
  let [elsewhere, unrelated, hottest] = [0, 0, 0];
  let count = 0;
  for (let index = 0; count < EDITS; index++) {
    const record: EditingRecord = editingRecord('test', index, SEED);
    const thing = cellsOf(record.image, record.object, side);
    if (!record.image.objects.some(({ name }) => name === record.object) || !thing.some(Boolean)) continue;
    count++;
    const see = async (scene: Scene) => model.see(new Uint8Array(await scenePng(scene)));
    const visual = await see(record.image);
    const signal = await edited.make({ visual, prompt: record.src, target: record.alt });
    const prepared = await edited.prepare(visual, record.src);
    const own = (await edited.influence(prepared, signal))?.values;
    if (own) {
      influence['own']!.push(agreement(own, thing));
      kinds[record.kind] ??= [];
      kinds[record.kind]!.push(agreement(own, thing));
      elsewhere +=
        own.reduce((sum, value, at) => sum + (thing[at] ? 0 : value), 0) / thing.filter((on) => !on).length;
      hottest += Math.max(...own);
      const restyled = await edited.prepare(await see(record.image_rephrase), record.src);
      const other = cellsOf(record.image_rephrase, record.object, side);
      if (other.some(Boolean))
        influence['other style']!.push(agreement((await edited.influence(restyled, signal))!.values, other));
      const apart = await edited.prepare(await see(record.m_loc), record.m_loc_q);
      const { values } = (await edited.influence(apart, signal))!;
      unrelated += values.reduce((sum, value) => sum + value, 0) / values.length;
    }
    const found = await picture.run(prepared.prefill.input, index);
    for (const { layer, mean } of found) contribution[layer]!.push(agreement(mean, thing));
    const target = thing.map((_, cell) => high.reduce((sum, layer) => sum + found[layer]!.mean[cell]!, 0));
    taught.push(agreement(target, thing));
  }
  console.log(
    `${adapter} (${model.summary.adapter!.editor}, ${model.summary.adapter!.where}), ${count} edits, draw ${SEED}`,
  );
  console.log(
    `${''.padEnd(44)}${'on it'.padStart(10)}${'points'.padStart(10)}${'its area'.padStart(10)}${'maps'.padStart(7)}`,
  );
  if (influence['own']!.length > 0) {
    told('influence, the edit’s own picture', influence['own']!);
    for (const [kind, found] of Object.entries(kinds)) told(`  ${kind}`, found);
    told('influence, the picture in another style', influence['other style']!);
    const mean = (sum: number) => (sum / count).toFixed(3);
    console.log(
      `influence: hottest cell ${mean(hottest)}, beside the thing ${mean(elsewhere)} a cell, on an unrelated picture ${mean(unrelated)} a cell`,
    );
  } else console.log('no influence map');
  told(`what eq. 18 teaches: mean of layers ${high.join(', ')}`, taught);
  for (const layer of layers) told(`visual contribution, unedited, layer ${layer}`, contribution[layer]!);
  await picture.dispose();
  await model.dispose();
}
