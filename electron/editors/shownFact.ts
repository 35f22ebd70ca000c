/**
 * @file A fact with its picture, as editors keep it that show it to the model before the question.
 */
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { decodeSafetensors, encodeSafetensors, type WritableTensor } from '../files/safetensors.ts';
import type { PictureLayout, Visual } from '../models/picture.ts';

export interface ShownFact {
  readonly prompt: string;
  readonly target: string;
  readonly visual: Visual | null;
}

const size = z.object({ height: z.number(), width: z.number() });
const view = z.object({ left: z.number(), top: z.number(), width: z.number(), height: z.number() });
const Layout = z.object({
  rows: z.int().min(1),
  grid: size.nullable(),
  windows: z.array(view),
  map: z.object({ grid: size, window: view, cells: z.array(z.int()) }).nullable(),
  tiles: size.optional(),
});
const Text = z.object({ prompt: z.string(), target: z.string(), layout: Layout.nullable() });

/** A fact as bytes, for the library. `more`: vectors that go with it. */
export function encodeFact(
  { prompt, target, visual }: ShownFact,
  more: ReadonlyMap<string, Float32Array> = new Map(),
): Uint8Array {
  const tensors = new Map<string, WritableTensor>();
  const put = (name: string, data: Float32Array, rows: number) =>
    tensors.set(name, { dtype: 'F32', shape: [rows, data.length / rows], data });
  if (visual) {
    put('visual', visual.rows, visual.layout.rows);
    for (const [layer, features] of visual.added.entries())
      put(`added.${layer}`, features, visual.layout.rows);
  }
  for (const [name, vector] of more) put(name, vector, 1);
  const fact = JSON.stringify({ prompt, target, layout: visual?.layout ?? null });
  return encodeSafetensors(tensors, { fact });
}

/** @throws EmendError 'damaged' where the bytes are no fact beside a decoder of this width */
export function decodeFact(
  bytes: Uint8Array,
  width: number,
  more: readonly string[] = [],
): { fact: ShownFact; more: Map<string, Float32Array> } {
  const { metadata, tensors } = decodeSafetensors(bytes, 'The stored edit');
  const refuse = (cause?: unknown): never => {
    throw new EmendError('damaged', 'The stored edit does not belong to this model. Check the edit again.', {
      cause,
    });
  };
  const parsed = Text.safeParse(parsedJson(metadata.get('fact')));
  if (!parsed.success) return refuse(parsed.error);
  const { layout, ...fact } = parsed.data;
  const vectors = new Map(
    more.map((name) => {
      const data = tensors.get(name)?.data;
      return [name, data instanceof Float32Array ? data : refuse()] as const;
    }),
  );
  if (!layout) return { fact: { ...fact, visual: null }, more: vectors };
  const floats = (name: string): Float32Array => {
    const found = tensors.get(name);
    const fits = found?.data instanceof Float32Array && found.shape.join() === [layout.rows, width].join();
    return fits ? (found.data as Float32Array) : refuse();
  };
  const added = Array.from({ length: tensors.size - 1 - more.length }, (_, layer) =>
    floats(`added.${layer}`),
  );
  const visual = { rows: floats('visual'), layout: layout as PictureLayout, added };
  return { fact: { ...fact, visual }, more: vectors };
}

/** What a text holds as JSON; undefined where it is none. */
export function parsedJson(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}
