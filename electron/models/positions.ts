/**
 * @file Rotary tables and attention masks, computed on the host in double precision and fed to the graphs.
 */
import type { TextConfig } from './config.ts';

/**
 * Positions of rows along one axis, or along three (M-RoPE: time, height, width): one array [rows] for each axis.
 * Decoders of one axis read the first.
 */
export type Positions = readonly Int32Array[];

/** Positions from..from + rows, the same along `axes` axes. */
export function consecutive(rows: number, from = 0, axes = 1): Positions {
  const positions = Int32Array.from({ length: rows }, (_, row) => from + row);
  return Array.from({ length: axes }, () => positions);
}

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

/** The axis of positions that frequency `index` of a rotary embedding turns with. */
function axisOfFrequency({ mrope }: TextConfig, index: number): number {
  if (!mrope) return 0;
  const { sections, interleaved } = mrope;
  if (interleaved) {
    // Qwen3-VL: time, height, width in turn, as far as the sections of height and width go; the rest is time.
    if (index % 3 === 1 && index < 3 * sections[1]) return 1;
    return index % 3 === 2 && index < 3 * sections[2] ? 2 : 0;
  }
  return index < sections[0] ? 0 : index < sections[0] + sections[1] ? 1 : 2;
}

/** cos and sin of position·frequency, the half table laid twice as Hugging Face does: each [positions, head size]. */
export function rotaryTables(
  config: TextConfig,
  positions: Positions,
): { cosine: Float32Array; sine: Float32Array } {
  const count = positions[0]!.length;
  let length = 0;
  for (const axis of positions) for (const position of axis) length = Math.max(length, position + 1);
  const frequencies = inverseFrequencies(config, length);
  const half = frequencies.length;
  const axes = Array.from(frequencies, (_, i) => positions[axisOfFrequency(config, i)]!);
  const cosine = new Float32Array(count * half * 2);
  const sine = new Float32Array(count * half * 2);
  for (let row = 0; row < count; row++) {
    for (let i = 0; i < half; i++) {
      // transformers multiplies in float32 before taking the cosine; so do we.
      const angle = Math.fround(axes[i]![row]! * Math.fround(frequencies[i]!));
      const at = row * half * 2 + i;
      cosine[at] = cosine[at + half] = Math.cos(angle);
      sine[at] = sine[at + half] = Math.sin(angle);
    }
  }
  return { cosine, sine };
}

/** Causal mask of `rows` new rows after `past` earlier ones, [rows, past + rows]; with a window each row sees so many, itself included. */
export function causalMask(rows: number, past: number, window: number | null = null): Float32Array {
  const total = past + rows;
  const mask = new Float32Array(rows * total);
  for (let row = 0; row < rows; row++) {
    const seen = past + row + 1;
    mask.fill(forbidden, row * total + seen, (row + 1) * total);
    if (window !== null && seen > window) mask.fill(forbidden, row * total, row * total + seen - window);
  }
  return mask;
}
