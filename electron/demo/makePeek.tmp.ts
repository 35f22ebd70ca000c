import { mkdirSync, copyFileSync, writeFileSync, existsSync, readFileSync } from 'node:fs';
import { openSafetensors, readTensor, writeSafetensors } from '../models/safetensors.ts';
import { demoConfig, demoPreprocessor } from './recipe.ts';
const out = process.argv[2] ?? '/tmp/peek';
mkdirSync(out, { recursive: true });
const work = '.cache/demo-training';
const tk = JSON.parse(readFileSync(work + '/tokenizer.json', 'utf8'));
const idOf = (c: string) => tk.added_tokens.find((t: any) => t.content === c).id;
const tensors = new Map<string, any>();
for (const n of [1, 2, 3]) {
  const p = `${work}/stage-${n}.safetensors`;
  if (!existsSync(p)) continue;
  const file = await openSafetensors(p);
  for (const name of file.tensors.keys()) if (name.startsWith('parameter.')) { const t = await readTensor(file, name); tensors.set(name.slice(10), { dtype: 'F16', shape: [...t.shape], data: t.data }); }
}
await writeSafetensors(out + '/model.safetensors', tensors, { format: 'pt' });
writeFileSync(out + '/config.json', JSON.stringify(demoConfig(2443, idOf('<image>'), idOf('<pad>'))));
writeFileSync(out + '/preprocessor_config.json', JSON.stringify(demoPreprocessor));
writeFileSync(out + '/generation_config.json', JSON.stringify({ bos_token_id: 1, eos_token_id: 2, max_new_tokens: 48 }));
for (const f of ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json']) copyFileSync(`${work}/${f}`, `${out}/${f}`);
process.exit(0);
