import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { loadSprites } from './world/sprites.ts';
import { TAUGHT_OBJECTS, OBJECTS } from './world/objects.ts';
import { sceneNumber } from './world/scene.ts';
import { patchLabels } from './world/render.ts';
import { pixelValues } from './batches.ts';
import { readFileSync } from 'node:fs';
await loadSprites();
const folder = process.argv[2] ?? 'resources/demo-model';
const model = await VisionLanguageModel.open(folder, { providers: ['cpu'] } as never);
const H = 160;
const b = readFileSync(folder + '/model.safetensors');
const n = Number(b.readBigUInt64LE(0));
const head = JSON.parse(b.subarray(8, 8 + n).toString());
const name = Object.keys(head).find((k) => k.includes('embed_tokens'))!;
const { data_offsets: [s, e] } = head[name];
const raw = new Uint16Array(b.buffer.slice(b.byteOffset + 8 + n + s, b.byteOffset + 8 + n + e));
const f16 = (h: number) => { const s = h >> 15 ? -1 : 1, ex = (h >> 10) & 31, m = h & 1023; return ex ? s * 2 ** (ex - 15) * (1 + m / 1024) : s * 2 ** -14 * (m / 1024); };
const emb = Float32Array.from(raw, f16);
const vocab = JSON.parse(readFileSync(folder + '/tokenizer.json', 'utf8')).model.vocab;
const names = [...TAUGHT_OBJECTS.map((o) => o.name.split(' ')), ['background']].map((ws) => {
  const v = new Float32Array(H);
  for (const w of ws) { const id = vocab['▁' + w]; for (let i = 0; i < H; i++) v[i]! += emb[id * H + i]! / ws.length; }
  return v;
});
const classOf = new Map(TAUGHT_OBJECTS.map((k, p) => [OBJECTS.indexOf(k), p]));
let right = 0, all = 0, bgRight = 0, bg = 0, objRight = 0, objs = 0; const bySize: Record<string, [number, number]> = {};
for (let i = 0; i < 150; i++) {
  const scene = sceneNumber('test', 5, i);
  const px = pixelValues([scene]);
  const rows = await model.visualEmbeddings(px as never) as Float32Array;
  const labels = patchLabels(scene, 10);
  const votes = new Map<number, number>();
  for (let p = 0; p < 100; p++) {
    let best = -1e9, arg = -1;
    names.forEach((v, k) => { let d = 0; for (let j = 0; j < H; j++) d += v[j]! * rows[p * H + j]!; if (d > best) { best = d; arg = k; } });
    votes.set(arg, (votes.get(arg) ?? 0) + 1);
    if (labels[p]! < 0) { bg++; if (arg === TAUGHT_OBJECTS.length) bgRight++; }
    else { all++; if (classOf.get(labels[p]!) === arg) right++; }
  }
  for (const o of scene.objects) { const k = TAUGHT_OBJECTS.findIndex((t) => t.name === o.name); const key = o.size < 32 ? '<32' : o.size < 40 ? '<40' : o.size < 50 ? '<50' : '50+'; bySize[key] ??= [0, 0]; bySize[key]![1]++; objs++; if ((votes.get(k) ?? 0) >= 2) { objRight++; bySize[key]![0]++; } }
}
console.log({ patches: right / all, bg: bgRight / bg, objRight: objRight / objs, share: all / (all + bg), bySize });
process.exit(0);
