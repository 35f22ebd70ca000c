/** @file Checkpoints of real size with random weights, for measurements that make them and remove them again. */
import { randomFillSync } from 'node:crypto';
import { copyFile, mkdir, open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { floatToHalf, layOutSafetensors } from '../../electron/files/safetensors.ts';
import { fingerprint } from '../../electron/models/checkpoint.ts';
import { openCheckpoint, readConfig } from '../../electron/models/open.ts';
import { packedName } from '../../electron/models/packed/cache.ts';
import { packedLayout } from '../../electron/models/packed/file.ts';
import type { PackedForm } from '../../electron/models/packed/form.ts';
import { fixture } from './fixtures.ts';

/** LLaVA-1.5-7B, and a LLaVA of 1.24 B parameters. */
export const geometries = {
  '7b': { hidden_size: 4096, intermediate_size: 11008, num_hidden_layers: 32, num_attention_heads: 32 },
  '1b': {
    ...{ hidden_size: 2048, intermediate_size: 5760, num_hidden_layers: 18 },
    ...{ num_attention_heads: 32, num_key_value_heads: 4 },
  },
} as const;
export type Geometry = keyof typeof geometries;

/** A checkpoint of F16 weights at random; `holes`: without those that a packed file has. */
export async function writeCheckpoint(folder: string, geometry: Geometry, holes: boolean): Promise<void> {
  for (const file of [
    'tokenizer.json',
    'tokenizer_config.json',
    'special_tokens_map.json',
    'generation_config.json',
  ])
    await copyFile(fixture(`checkpoints/llava_tiny/${file}`), join(folder, file));
  const tiny = JSON.parse(await readFile(fixture('checkpoints/llava_tiny/config.json'), 'utf8')) as Record<
    string,
    Record<string, unknown>
  >;
  const config = {
    ...tiny,
    text_config: {
      ...{ num_key_value_heads: null, ...tiny['text_config'], ...geometries[geometry] },
      ...{ vocab_size: 32064, max_position_embeddings: 4096, torch_dtype: 'float16' },
      ...(geometry === '7b' && { num_key_value_heads: 32 }),
    },
    vision_config: {
      ...{ ...tiny['vision_config'], hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: 24 },
      ...{ num_attention_heads: 16, image_size: 336, patch_size: 14, projection_dim: 768 },
    },
  };
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  const pictures = JSON.parse(
    await readFile(fixture('checkpoints/llava_tiny/preprocessor_config.json'), 'utf8'),
  ) as object;
  const size = { crop_size: { height: 336, width: 336 }, size: { shortest_edge: 336 } };
  await writeFile(join(folder, 'preprocessor_config.json'), JSON.stringify({ ...pictures, ...size }));

  const { family, config: parsed } = readConfig(config);
  const tensors = [...family.backbone(parsed).tensors()].map(([name, shape]) => ({
    ...{ name, shape },
    dtype: 'F16' as const,
  }));
  const { header, offsets, size: bytes } = layOutSafetensors(tensors, { format: 'pt' });
  const file = await open(join(folder, 'model.safetensors'), 'w');
  try {
    await file.write(header, 0, header.length, 0);
    await file.truncate(bytes);
    const noise = halves();
    for (const { name, shape } of tensors) {
      if (holes && /language_model\.model\.layers\.\d+\.(self_attn|mlp)/.test(name)) continue;
      const length = 2 * shape.reduce((a, b) => a * b, 1);
      // Norms are 1.
      const values =
        shape.length === 1 && /norm.*weight/.test(name)
          ? floatToHalf(new Float32Array(length / 2).fill(1))
          : noise;
      await fill(file, offsets.get(name)!, length, new Uint8Array(values.buffer));
    }
  } finally {
    await file.close();
  }
}

/** Small numbers in half precision, some 4 MB of them. */
function halves(): Uint16Array<ArrayBuffer> {
  return floatToHalf(Float32Array.from({ length: 2 ** 21 }, () => 0.04 * (Math.random() - 0.5)));
}

async function fill(
  file: Awaited<ReturnType<typeof open>>,
  at: number,
  length: number,
  pattern: Uint8Array,
): Promise<void> {
  for (let done = 0; done < length; ) {
    const { bytesWritten } = await file.write(pattern, 0, Math.min(pattern.length, length - done), at + done);
    done += bytesWritten;
  }
}

/** The packed file with random blocks: packing as many real numbers says nothing more of memory, and takes minutes. */
export async function writeRandomPacked(folder: string, form: PackedForm): Promise<void> {
  const checkpoint = await openCheckpoint(folder);
  const source = await fingerprint(checkpoint);
  const { tensors, header, offsets, size } = packedLayout(checkpoint, source, form);
  await mkdir(join(folder, 'packed'));
  const file = await open(join(folder, 'packed', packedName(source, form)), 'w');
  const noise = randomFillSync(new Uint8Array(4 * 2 ** 20));
  const half = halves();
  try {
    await file.write(header, 0, header.length, 0);
    await file.truncate(size);
    for (const { name, shape, blocks } of tensors) {
      const count = shape.reduce((a, b) => a * b, 1);
      if (!blocks) {
        const values = shape.length === 1 ? floatToHalf(new Float32Array(count).fill(1)) : half;
        await fill(file, offsets.get(name)!, 2 * count, new Uint8Array(values.buffer));
        continue;
      }
      const scale = new Float32Array(2 ** 18).fill(
        (blocks.bits === 8 ? 2e-4 : 4e-3) / Math.sqrt(shape[1]! / 1024),
      );
      const zeros = new Uint8Array(2 ** 18).fill(blocks.bits === 8 ? 128 : 0x88);
      await fill(file, offsets.get(`${name}.blocks`)!, (count * blocks.bits) / 8, noise);
      await fill(
        file,
        offsets.get(`${name}.scales`)!,
        (count / blocks.size) * 4,
        new Uint8Array(scale.buffer),
      );
      await fill(file, offsets.get(`${name}.zero_points`)!, ((count / blocks.size) * blocks.bits) / 8, zeros);
    }
  } finally {
    await file.close();
  }
}
