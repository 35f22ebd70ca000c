/**
 * @file Rotary tables and attention masks, computed on the host in double precision and fed to the graphs.
 */
import type { TextConfig } from './config.ts';

/** What is added to the score of a pair that may not attend: far below any score, and finite, so that softmax stays finite. */
export const forbidden = -1e9;

/** Inverse frequencies θ^(−2i/size) of the rotary embedding, after the checkpoint's scaling, [head size / 2]. */
function inverseFrequencies(config: TextConfig, length: number): Float64Array {
  const half = config.headDim / 2;
  const scaling = config.ropeScaling;
  let base = config.ropeTheta;
  if (scaling.kind === 'dynamic' && length > scaling.originalMaxPositions) {
    const stretch = (scaling.factor * length) / scaling.originalMaxPositions - (scaling.factor - 1);
    base *= stretch ** (config.headDim / (config.headDim - 2));
  }
  const plain = Float64Array.from({ length: half }, (_, i) => base ** (-i / half));
  if (scaling.kind === 'linear') return plain.map((value) => value / scaling.factor);
  if (scaling.kind !== 'llama3') return plain;
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalMaxPositions } = scaling;
  return plain.map((value) => {
    const wavelength = (2 * Math.PI) / value;
    if (wavelength < originalMaxPositions / high) return value;
    if (wavelength > originalMaxPositions / low) return value / factor;
    const smooth = (originalMaxPositions / wavelength - low) / (high - low);
    return ((1 - smooth) * value) / factor + smooth * value;
  });
}

/** How many positions a sequence may have: those the model was trained for, as far as its scaling stretches them. */
export function positionLimit({ maxPositions, ropeScaling }: TextConfig): number {
  const stretched = ropeScaling.kind === 'linear' || ropeScaling.kind === 'dynamic';
  return stretched ? Math.floor(maxPositions * ropeScaling.factor) : maxPositions;
}

/** cos and sin of position·frequency, the half table laid twice as Hugging Face does: each [positions, head size]. */
export function rotaryTables(
  config: TextConfig,
  positions: ArrayLike<number>,
): { cosine: Float32Array; sine: Float32Array } {
  const count = positions.length;
  let length = 0;
  for (let i = 0; i < count; i++) length = Math.max(length, positions[i]! + 1);
  const frequencies = inverseFrequencies(config, length);
  const half = frequencies.length;
  const cosine = new Float32Array(count * half * 2);
  const sine = new Float32Array(count * half * 2);
  for (let row = 0; row < count; row++) {
    for (let i = 0; i < half; i++) {
      // transformers multiplies in float32 before taking the cosine; so do we.
      const angle = Math.fround(positions[row]! * Math.fround(frequencies[i]!));
      const at = row * half * 2 + i;
      cosine[at] = cosine[at + half] = Math.cos(angle);
      sine[at] = sine[at + half] = Math.sin(angle);
    }
  }
  return { cosine, sine };
}

/** Causal mask of `rows` new rows after `past` earlier ones, [rows, past + rows]. */
export function causalMask(rows: number, past: number): Float32Array {
  const total = past + rows;
  const mask = new Float32Array(rows * total);
  for (let row = 0; row < rows; row++) mask.fill(forbidden, row * total + past + row + 1, (row + 1) * total);
  return mask;
}
