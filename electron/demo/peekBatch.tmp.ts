import { loadTokenizer } from '../models/tokenizer.ts';
import { plainPrompts } from '../models/prompt.ts';
import { languageBatch } from './batches.ts';
import { parsedDemoConfig } from './recipe.ts';
import { facts } from './world/facts.ts';
import { seededRandom } from './world/random.ts';
import { loadSprites } from './world/sprites.ts';
import { readFileSync } from 'node:fs';
await loadSprites();
const tk = JSON.parse(readFileSync('.cache/demo-training/tokenizer.json','utf8'));
const idOf = (c: string) => tk.added_tokens.find((t: any) => t.content === c).id;
const config = parsedDemoConfig(2443, idOf('<image>'), idOf('<pad>'));
const tokenizer = await loadTokenizer('.cache/demo-training', config);
let miss: string[] = [];
const source = { writer: plainPrompts(tokenizer), facts: facts(), endToken: 2, wordId: (w: string) => { const ids = tokenizer.encodeUserText(w); if (ids.length !== 1) miss.push(w); return ids.length === 1 ? ids[0] : undefined; } };
const t0 = performance.now();
const b = languageBatch(seededRandom(3), source, { pictures: 12, texts: 8, rows: 132 });
console.log(performance.now() - t0, 'ms', b.mentions.length, miss, b.picked.length);
let ent=0, uni=0, abs=0; for (let m = 0; m < b.mentions.length; m++) { const t = b.meant.subarray(m*233,(m+1)*233); let e = 0; for (const v of t) if (v>0) e -= v*Math.log(v); ent += e; if (t[0]===1) abs++; } console.log("floor", ent/b.mentions.length, "absent", abs/b.mentions.length);
for (let m = 0; m < 0; m++) {
  const row = Number(b.mentions[m]!); const p = Math.floor(row / 233), r = row % 233;
  const at = r - 101; const ids = [...b.ids.slice(p * 132 + Math.max(0, at - 8), p * 132 + at + 4)].map(Number);
  const t = b.meant.subarray(m * 233, (m + 1) * 233);
  const on = [...t.keys()].filter((i) => t[i]! > 0).map((i) => `${i}:${t[i]!.toFixed(2)}`).join(' ');
  console.log(p, JSON.stringify(tokenizer.decode(ids)), '@', tokenizer.decode([Number(b.ids[p * 132 + at])]), '|', on);
}
process.exit(0)
