import { readFileSync } from 'node:fs';
import { openSafetensors, readTensor } from '../models/safetensors.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { loadSprites } from './world/sprites.ts';
import { TAUGHT_OBJECTS, OBJECTS } from './world/objects.ts';
import { sceneNumber } from './world/scene.ts';
import { patchLabels } from './world/render.ts';
import { pixelValues } from './batches.ts';
await loadSprites();
const H = 160; const folder = '/tmp/peek';
const model = await VisionLanguageModel.open(folder, { providers: ['cpu'] } as never);
const file = await openSafetensors('.cache/demo-training/stage-1.safetensors');
const E = (await readTensor(file, 'parameter.language_model.model.embed_tokens.weight')).data as Float32Array;
const vocab = JSON.parse(readFileSync(folder + '/tokenizer.json', 'utf8')).model.vocab;
const norm = (v: Float32Array) => Math.sqrt(v.reduce((s, x) => s + x * x, 0));
const cos = (a: Float32Array, b: Float32Array) => { let d = 0; for (let i = 0; i < H; i++) d += a[i]! * b[i]!; return d / norm(a) / norm(b); };
const row = (w: string) => E.subarray(vocab['▁' + w] * H, vocab['▁' + w] * H + H);
console.log('norms cat dog apple background left the', ['cat', 'dog', 'apple', 'background', 'left', 'the'].map((w) => norm(row(w)).toFixed(2)));
console.log('cos cat-dog', cos(row('cat'), row('dog')), 'cat-apple', cos(row('cat'), row('apple')), 'cat-bg', cos(row('cat'), row('background')), 'cat-left', cos(row('cat'), row('left')), 'cat-the', cos(row('cat'), row('the')), 'cat cats', cos(row('cat'), row('cats')));
const one = TAUGHT_OBJECTS.filter((o) => !o.name.includes(' '));
console.log('two-word', TAUGHT_OBJECTS.filter((o) => o.name.includes(' ')).map((o) => o.name).join(', '));
let right = 0, bg = 0, other = 0, n = 0, m = 0, k = 0, rn = 0;
for (let i = 0; i < 20; i++) {
  const scene = sceneNumber('test', 5, i);
  const rows = await model.visualEmbeddings(pixelValues([scene]) as never) as Float32Array;
  const labels = patchLabels(scene, 10);
  for (let p = 0; p < 100; p++) {
    const v = rows.subarray(p * H, p * H + H); rn += norm(v) / 2000;
    for (const o of scene.objects) { if (o.name.includes(' ')) continue; const c = cos(v, row(o.name));
      if (labels[p]! < 0) { bg += c; k++; } else if (OBJECTS[labels[p]!]!.name === o.name) { right += c; n++; } else { other += c; m++; } }
  }
}
console.log({ right: right / n, other: other / m, bg: bg / k, rowNorm: rn });
process.exit(0);
