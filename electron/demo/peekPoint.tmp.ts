import { readFileSync } from 'node:fs';
import { openSafetensors, readTensor } from '../models/safetensors.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { floatsOf } from '../tensor/session.ts';
import { loadSprites } from './world/sprites.ts';
import { objectNamed } from './world/objects.ts';
import { sceneNumber } from './world/scene.ts';
import { patchOwners } from './world/render.ts';
import { questionsOf } from './world/questions.ts';
import { seededRandom } from './world/random.ts';
import { pixelValues } from './batches.ts';
await loadSprites();
const H = 160, D = 40; const folder = '/tmp/peek';
const model = await VisionLanguageModel.open(folder, { providers: ['cpu'], cuts: [0] } as never);
const file = await openSafetensors(folder + '/model.safetensors');
const f32 = async (n: string) => { const t = await readTensor(file, n); const d = t.data as any; if (d instanceof Float32Array) return d; return Float32Array.from(d, (h: number) => { const s = h >> 15 ? -1 : 1, ex = (h >> 10) & 31, m = h & 1023; return ex ? s * 2 ** (ex - 15) * (1 + m / 1024) : s * 2 ** -14 * (m / 1024); }); };
const L = 'language_model.model.layers.1.';
const g = await f32(L + 'input_layernorm.weight'), Wq = await f32(L + 'self_attn.q_proj.weight'), Wk = await f32(L + 'self_attn.k_proj.weight');
const vocab = JSON.parse(readFileSync(folder + '/tokenizer.json', 'utf8')).model.vocab;
function head(x: Float32Array, W: Float32Array, pos: number) {
  let ms = 0; for (const v of x) ms += v * v / H; const r = 1 / Math.sqrt(ms + 1e-5);
  const y = new Float32Array(D);
  for (let i = 0; i < D; i++) { let s = 0; for (let j = 0; j < H; j++) s += W[i * H + j]! * x[j]! * r * g[j]!; y[i] = s; }
  const o = new Float32Array(D);
  for (let i = 0; i < D / 2; i++) { const a = pos * 1e6 ** (-2 * i / D); o[i] = y[i]! * Math.cos(a) - y[i + D / 2]! * Math.sin(a); o[i + D / 2] = y[i + D / 2]! * Math.cos(a) + y[i]! * Math.sin(a); }
  return o;
}
const acc: Record<string, { n: number; bos: number; hit: number; fg: number; text: number }> = {};
for (let i = 0; i < 60; i++) {
  const scene = sceneNumber('test', 5, i);
  const visual = await model.visualEmbeddings(pixelValues([scene]) as never) as Float32Array;
  const owners = patchOwners(scene, 10);
  for (const q of questionsOf(scene, seededRandom(i))) {
    if (!['presence', 'count', 'where'].includes(q.kind)) continue;
    const t: any = q.topic; const word = q.kind === 'count' ? objectNamed(t.object).plural : t.object;
    const enc = model.prompts.encodePrompt({ prompt: q.question, image: true });
    const tok = enc.ids.lastIndexOf(vocab['▁' + word]); if (tok < 0) continue;
    const row = tok + 99;
    const pre = await model.prefill(await model.lay(enc, visual));
    const hid = await floatsOf(await model.unedited(pre, 0));
    const qv = head(hid.subarray(row * H, row * H + H), Wq, row);
    const s = new Float32Array(row + 1);
    for (let r = 0; r <= row; r++) { const k = head(hid.subarray(r * H, r * H + H), Wk, r); let d = 0; for (let j = 0; j < D; j++) d += qv[j]! * k[j]!; s[r] = d / Math.sqrt(D); }
    const mx = Math.max(...s); let z = 0; for (const v of s) z += Math.exp(v - mx);
    const key = q.kind + ' ' + (scene.objects.some((o) => o.name === t.object) ? 'shown' : 'absent');
    const e = (acc[key] ??= { n: 0, bos: 0, hit: 0, fg: 0, text: 0 }); e.n++;
    for (let r = 0; r <= row; r++) { const p = Math.exp(s[r]! - mx) / z; if (r === 0) e.bos += p; else if (r <= 100) { const o = owners[r - 1]!; if (o >= 0) { if (scene.objects[o]!.name === t.object) e.hit += p; else e.fg += p; } } else e.text += p; }
  }
}
for (const [k, e] of Object.entries(acc)) console.log(k, e.n, 'bos', (e.bos / e.n).toFixed(2), 'hit', (e.hit / e.n).toFixed(2), 'other objects', (e.fg / e.n).toFixed(2), 'text', (e.text / e.n).toFixed(2));
process.exit(0);
