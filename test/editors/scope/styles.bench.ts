/**
 * @file How well what the demo model holds of a thing tells that it is the same in the other drawing style: whether, of all things drawn in one
 * style, the nearest to a thing drawn in the other is that thing. For things the model was taught and things it was never shown. What a scope
 * compares is made of these rows: where they do not tell, only having seen the thing in both styles can.
 */

import { OBJECTS } from '../../../electron/demo/world/objects.ts';
import { seededRandom } from '../../../electron/demo/world/random.ts';
import { patchOwners, scenePng } from '../../../electron/demo/world/render.ts';
import { composeScene, restyleScene, type Scene } from '../../../electron/demo/world/scene.ts';
import { loadSprites } from '../../../electron/demo/world/sprites.ts';
import { pictureRows, usualLayers } from '../../../electron/editors/scope/learned/features.ts';
import { OpenModel } from '../../../electron/engine/openModel.ts';

const SEED = 7;
const SIDE = 10;
/** Scenes of each thing alone, averaged. */
const SCENES = 3;

await loadSprites();
const model = await OpenModel.open(
  { path: 'resources/demo-model', adapter: 'resources/demo-adapter', providers: ['cpu'], template: 'plain' },
  { signal: new AbortController().signal, send: () => {} },
);
const { edited } = model;
const layers = usualLayers(edited.model.decoder.layers);

/** Mean rows of a scene's only thing, by what the scope looks at. */
async function ofThing(scene: Scene): Promise<Map<string, Float32Array>> {
  const visual = await model.see(new Uint8Array(await scenePng(scene)));
  const prepared = await edited.prepare(visual, '?');
  const found = await pictureRows(edited.model, prepared.prefill, layers);
  const owners = patchOwners(scene, SIDE);
  const cells = [...owners.keys()].filter((cell) => owners[cell]! >= 0);
  const width = edited.model.hidden;
  return new Map(
    Object.entries(found).map(([name, rows]) => [
      name,
      Float32Array.from({ length: width }, (_, column) =>
        cells.reduce((sum, cell) => sum + rows[cell * width + column]! / cells.length, 0),
      ),
    ]),
  );
}

function add(sums: Map<string, Float32Array>, more: Map<string, Float32Array>): void {
  for (const [name, values] of more) {
    const sum = sums.get(name) ?? new Float32Array(values.length);
    for (const [at, value] of values.entries()) sum[at]! += value / SCENES;
    sums.set(name, sum);
  }
}

const kinds = OBJECTS.filter(({ mass }) => !mass);
const styles: Array<[Map<string, Float32Array>, Map<string, Float32Array>]> = [];
for (const kind of kinds) {
  const pair: (typeof styles)[number] = [new Map(), new Map()];
  for (let scene = 0; scene < SCENES; scene++) {
    const random = seededRandom(SEED).split(kind.name).split(scene);
    const drawn = composeScene(random, { include: [kind], count: 1 });
    const other = restyleScene(drawn, random, false);
    // Whichever style chance drew first.
    const [first, second] =
      drawn.objects[0]!.style < other.objects[0]!.style ? [drawn, other] : [other, drawn];
    add(pair[0], await ofThing(first));
    add(pair[1], await ofThing(second));
  }
  styles.push(pair);
}

/** Vectors less their mean, of length 1. */
function centred(vectors: readonly Float32Array[]): Float32Array[] {
  const mean = vectors[0]!.map((_, at) => vectors.reduce((sum, one) => sum + one[at]! / vectors.length, 0));
  return vectors.map((one) => {
    const apart = one.map((value, at) => value - mean[at]!);
    const length = Math.hypot(...apart);
    return apart.map((value) => value / length);
  });
}

console.log(`${kinds.length} things, ${SCENES} scenes each in both drawing styles, draw ${SEED}`);
console.log('the nearest of all in the other style is the thing itself, and its place among them:');
for (const name of styles[0]![0].keys()) {
  const [one, other] = [0, 1].map((side) => centred(styles.map((pair) => pair[side]!.get(name)!)));
  const places = kinds.map((_, at) => {
    const likeness = other!.map((vector) => vector.reduce((sum, value, i) => sum + value * one![at]![i]!, 0));
    return likeness.filter((value) => value > likeness[at]!).length + 1;
  });
  for (const taught of [true, false]) {
    const some = places.filter((_, at) => kinds[at]!.taught === taught);
    const first = some.filter((place) => place === 1).length;
    const median = some.toSorted((a, b) => a - b)[some.length >> 1];
    console.log(
      `${name.padEnd(18)} ${taught ? 'taught     ' : 'never shown'}  ${((100 * first) / some.length).toFixed(0).padStart(3)} % of ${some.length}, median place ${median}`,
    );
  }
  const strange = kinds.flatMap(({ taught, name: thing }, at) => (taught ? [] : [`${thing} ${places[at]}`]));
  console.log(`  ${strange.join(', ')}`);
}
await model.dispose();
