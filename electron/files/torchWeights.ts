/** @file A state dict that torch.save wrote as a file of tensors, which are used where they lie. */
import { realpath } from 'node:fs/promises';
import { EmendError } from '../errors.ts';
import type { SafetensorsFile, TensorEntry } from './safetensors.ts';
import { openTorchArchive } from './torchArchive.ts';
import { type TorchDict, TorchTensor, type TorchValue } from './torchPickle.ts';

/**
 * Opens an archive whose value is a state dict, or a training's record that holds one as `model`. Reads the description alone; what
 * is no tensor of floats is passed over.
 * @throws EmendError as `openTorchArchive`, 'unsupported' where there is no state dict or a tensor does not lie in one piece
 */
export async function openTorchWeights(path: string): Promise<SafetensorsFile> {
  const archive = await openTorchArchive(path);
  try {
    const tensors = new Map<string, TensorEntry>();
    for (const [name, value] of stateDict(archive.value, path)) {
      if (typeof name !== 'string' || !(value instanceof TorchTensor)) continue;
      const { dtype, shape } = value;
      if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16') continue;
      tensors.set(name, { name, dtype, shape, ...archive.locate(value) });
    }
    const { size } = archive;
    return { path: await realpath(path), size, dataOffset: 0, metadata: new Map(), tensors };
  } finally {
    await archive.close();
  }
}

function stateDict(value: TorchValue, path: string): TorchDict {
  const dict = value instanceof Map && value.get('model') instanceof Map ? value.get('model') : value;
  if (dict instanceof Map) return dict;
  throw new EmendError('unsupported', `${path} holds no state dict.`);
}
