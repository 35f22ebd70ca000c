/** @file Archives that torch.save wrote: what is in them, and the values of their tensors. */
import { EmendError } from '../errors.ts';
import { bfloatToFloat, halfToFloat } from './safetensors.ts';
import { openStoredZip } from './storedZip.ts';
import { readTorchPickle, type StorageDtype, type TorchTensor, type TorchValue } from './torchPickle.ts';

const LARGEST_DESCRIPTION = 16 * 1024 * 1024;

const ELEMENT_BYTES: Readonly<Record<StorageDtype, number>> = {
  ...{ F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, I8: 1, U8: 1, BOOL: 1 },
};

export interface TorchArchive {
  readonly path: string;
  /** of the whole archive, in bytes */
  readonly size: number;
  /** what was saved */
  readonly value: TorchValue;
  /**
   * The values of tensors in F32, [elements] each in the order of their shapes.
   * @throws EmendError 'damaged' where two of them share a storage or one's storage is not as long as it says, 'unsupported' for
   *   tensors that are no floats
   */
  read(tensors: readonly TorchTensor[]): Promise<Float32Array[]>;
  /**
   * Where the values of a tensor lie in the archive, unread.
   * @throws EmendError 'damaged' where its storage is not as long as it says, 'unsupported' where they do not lie in the order of its shape
   */
  locate(tensor: TorchTensor): { readonly offset: number; readonly bytes: number };
  close(): Promise<void>;
}

/** @throws EmendError as `openStoredZip` and `readTorchPickle` */
export async function openTorchArchive(path: string): Promise<TorchArchive> {
  const zip = await openStoredZip(path);
  const damaged = (why: string) => new EmendError('damaged', `${path}: ${why}. Copy it again.`);
  try {
    const described = [...zip.files.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
    const [description] = described;
    if (description === undefined || described.length > 1)
      throw new EmendError('unsupported', `${path} is a zip archive, and none that torch.save wrote.`);
    const root = description.slice(0, -'data.pkl'.length);
    if (zip.files.get(description)!.bytes > LARGEST_DESCRIPTION) throw damaged('its description is too long');
    const order = zip.files.has(`${root}byteorder`)
      ? (await zip.read(`${root}byteorder`)).toString()
      : 'little';
    if (order !== 'little')
      throw new EmendError('unsupported', `${path} was written on a big-endian machine.`);
    const value = readTorchPickle(await zip.read(description), path);
    const storageOf = ({ storage, elements, dtype }: TorchTensor) => {
      const name = `${root}data/${storage}`;
      const file = zip.files.get(name);
      if (file === undefined) throw damaged(`it lacks the storage ${storage}`);
      if (file.bytes !== elements * ELEMENT_BYTES[dtype])
        throw damaged(`the storage ${storage} is not as long as it says`);
      return { name, offset: file.offset };
    };
    return {
      path,
      size: zip.size,
      value,
      locate(tensor) {
        if (!isContiguous(tensor))
          throw new EmendError('unsupported', `${path} holds a tensor that does not lie in one piece.`);
        const each = ELEMENT_BYTES[tensor.dtype];
        const { offset } = storageOf(tensor);
        return { offset: offset + tensor.offset * each, bytes: each * count(tensor.shape) };
      },
      async read(tensors) {
        const storages = tensors.filter(({ shape }) => !shape.includes(0)).map(({ storage }) => storage);
        if (new Set(storages).size < storages.length) throw damaged('two of its tensors share a storage');
        const values: Float32Array[] = [];
        for (const tensor of tensors) {
          const { name } = storageOf(tensor);
          values.push(strided(tensor, floats(await zip.read(name), tensor.dtype, path)));
        }
        return values;
      },
      close: () => zip.close(),
    };
  } catch (error) {
    await zip.close();
    throw error;
  }
}

const count = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** Whether the elements lie one behind another in the order of the shape. */
function isContiguous({ shape, stride }: TorchTensor): boolean {
  let each = 1;
  return shape.toReversed().every((size, back) => {
    const fits = size === 1 || stride[shape.length - 1 - back] === each;
    each *= size;
    return fits;
  });
}

function floats(bytes: Buffer, dtype: StorageDtype, path: string): Float32Array {
  // A copy of its own lies at an even place, whatever the buffer's.
  const own = new Uint8Array(bytes).buffer;
  if (dtype === 'F32') return new Float32Array(own);
  if (dtype === 'F16') return halfToFloat(new Uint16Array(own));
  if (dtype === 'BF16') return bfloatToFloat(new Uint16Array(own));
  if (dtype === 'F64') return Float32Array.from(new Float64Array(own));
  throw new EmendError('unsupported', `${path} holds a tensor of ${dtype}; weights are floats.`);
}

/** The elements in the order of the shape, wherever its strides have them. */
function strided({ shape, stride, offset }: TorchTensor, storage: Float32Array): Float32Array {
  const out = new Float32Array(count(shape));
  const index = shape.map(() => 0);
  let from = offset;
  for (let i = 0; i < out.length; i++) {
    out[i] = storage[from]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += stride[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      from -= stride[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}
