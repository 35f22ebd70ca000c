/** @file Archives in the form of torch.save, small, and wrong where a test wants them to be. */
import { crc32 } from 'node:zlib';

export function float32s(values: readonly number[]): Buffer {
  return Buffer.from(Float32Array.from(values).buffer);
}

/** A tensor in a pickle: its storage's name and elements, where it begins, its sizes and strides. */
export interface PickledTensor {
  readonly storage: string;
  readonly elements: number;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly stride: readonly number[];
}
export const tensor = (
  storage: string,
  elements: number,
  offset: number,
  shape: readonly number[],
  stride: readonly number[],
): PickledTensor => ({ storage, elements, offset, shape, stride });

type Pickled = string | number | PickledTensor | { readonly [key: string]: Pickled };

/** A pickle of protocol 2, of dicts, texts, whole numbers and tensors of F32. */
export function pickleOf(value: Pickled): Buffer {
  const text = (written: string) => {
    const bytes = Buffer.from(written);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    return Buffer.concat([Buffer.from('X'), length, bytes]);
  };
  const number = (written: number) => {
    const bytes = Buffer.alloc(5);
    bytes.write('J');
    bytes.writeInt32LE(written, 1);
    return bytes;
  };
  const tuple = (items: readonly number[]) =>
    Buffer.concat([Buffer.from('('), ...items.map(number), Buffer.from('t')]);
  const write = (item: Pickled): Buffer => {
    if (typeof item === 'string') return text(item);
    if (typeof item === 'number') return number(item);
    if (isTensor(item)) {
      const storage = [
        text('storage'),
        Buffer.from('ctorch\nFloatStorage\n'),
        text(item.storage),
        text('cpu'),
      ];
      return Buffer.concat([
        Buffer.from('ctorch._utils\n_rebuild_tensor_v2\n(('),
        ...storage,
        number(item.elements),
        Buffer.from('tQ'),
        number(item.offset),
        tuple(item.shape),
        tuple(item.stride),
        Buffer.from([0x89]),
        Buffer.from('ccollections\nOrderedDict\n)RtR'),
      ]);
    }
    const pairs = Object.entries(item).flatMap(([key, held]) => [text(key), write(held)]);
    return Buffer.concat([Buffer.from('}('), ...pairs, Buffer.from('u')]);
  };
  return Buffer.concat([Buffer.from([0x80, 2]), write(value), Buffer.from('.')]);
}

const isTensor = (value: Pickled): value is PickledTensor =>
  typeof value === 'object' && Array.isArray(value['shape']);

/**
 * A zip archive of uncompressed files with their sizes behind them.
 * @param wrong `overlap`: the second file lies in the first; `large`: records for large archives, with another count of files
 */
export function storedZip(
  files: ReadonlyArray<[name: string, bytes: Buffer]>,
  wrong: { readonly overlap?: boolean; readonly large?: { readonly count: number } } = {},
): Buffer {
  const parts: Buffer[] = [];
  const entries: Buffer[] = [];
  let at = 0;
  let first = 0;
  for (const [index, [name, bytes]] of files.entries()) {
    const named = Buffer.from(name);
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(0x0808, 6);
    local.writeUInt16LE(named.length, 26);
    const descriptor = Buffer.alloc(16);
    descriptor.writeUInt32LE(0x08074b50, 0);
    descriptor.writeUInt32LE(crc32(bytes), 4);
    descriptor.writeUInt32LE(bytes.length, 8);
    descriptor.writeUInt32LE(bytes.length, 12);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50, 0);
    entry.writeUInt16LE(0x0808, 8);
    entry.writeUInt32LE(crc32(bytes), 16);
    // An overlapping file takes all that follows it, too.
    const length = wrong.overlap && index === 0 ? bytes.length + 60 : bytes.length;
    entry.writeUInt32LE(length, 20);
    entry.writeUInt32LE(length, 24);
    entry.writeUInt16LE(named.length, 28);
    entry.writeUInt32LE(at, 42);
    entries.push(entry, named);
    parts.push(local, named, bytes, descriptor);
    if (index === 0) first = at;
    at += 30 + named.length + bytes.length + 16;
  }
  const directory = Buffer.concat(entries);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(at, 16);
  const large: Buffer[] = [];
  if (wrong.large) {
    const record = Buffer.alloc(56);
    record.writeUInt32LE(0x06064b50, 0);
    record.writeBigUInt64LE(BigInt(wrong.large.count), 32);
    record.writeBigUInt64LE(BigInt(directory.length), 40);
    record.writeBigUInt64LE(BigInt(at), 48);
    const locator = Buffer.alloc(20);
    locator.writeUInt32LE(0x07064b50, 0);
    locator.writeBigUInt64LE(BigInt(at + directory.length), 8);
    large.push(record, locator);
  }
  return Buffer.concat([...parts, directory, ...large, end], undefined).subarray(first);
}
