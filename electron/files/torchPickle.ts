/**
 * @file The part of Python's pickle that a state dict takes, as a machine that can build numbers, texts, lists, dicts and tensors, and
 * nothing else. Pickles are programs: whatever else one asks for is refused by name and never done.
 */
import { EmendError } from '../errors.ts';

export type StorageDtype = 'F64' | 'F32' | 'F16' | 'BF16' | 'I64' | 'I32' | 'I16' | 'I8' | 'U8' | 'BOOL';

/** A tensor as the pickle describes it; its values lie in the archive. */
export class TorchTensor {
  readonly storage: string;
  readonly dtype: StorageDtype;
  /** elements of the storage */
  readonly elements: number;
  /** element it begins at */
  readonly offset: number;
  readonly shape: readonly number[];
  /** elements from one to the next along each axis */
  readonly stride: readonly number[];

  constructor(storage: Storage, offset: number, shape: readonly number[], stride: readonly number[]) {
    this.storage = storage.key;
    this.dtype = storage.dtype;
    this.elements = storage.elements;
    this.offset = offset;
    this.shape = shape;
    this.stride = stride;
  }
}

/** Dicts are maps, tuples arrays. */
export type TorchValue = null | boolean | number | string | TorchTensor | TorchValue[] | TorchDict;
export type TorchDict = Map<string | number, TorchValue>;

class Storage {
  readonly key: string;
  readonly dtype: StorageDtype;
  readonly elements: number;
  constructor(key: string, dtype: StorageDtype, elements: number) {
    this.key = key;
    this.dtype = dtype;
    this.elements = elements;
  }
}

/** Something a pickle names; the only ones there are. */
class Global {
  readonly build: 'dict' | 'tensor' | 'parameter' | StorageDtype;
  constructor(build: Global['build']) {
    this.build = build;
  }
}

const globals: Readonly<Record<string, Global>> = {
  'collections OrderedDict': new Global('dict'),
  'torch._utils _rebuild_tensor_v2': new Global('tensor'),
  'torch._utils _rebuild_parameter': new Global('parameter'),
  'torch DoubleStorage': new Global('F64'),
  'torch FloatStorage': new Global('F32'),
  'torch HalfStorage': new Global('F16'),
  'torch BFloat16Storage': new Global('BF16'),
  'torch LongStorage': new Global('I64'),
  'torch IntStorage': new Global('I32'),
  'torch ShortStorage': new Global('I16'),
  'torch CharStorage': new Global('I8'),
  'torch ByteStorage': new Global('U8'),
  'torch BoolStorage': new Global('BOOL'),
};

class Mark {}
const mark = new Mark();
type Item = TorchValue | Storage | Global | Mark;

const MOST_ITEMS = 1_000_000;
const LONGEST_GLOBAL = 400;

/**
 * Runs a pickle of protocol 2, which is what torch.save writes.
 * @param origin named in errors
 * @throws EmendError 'unsupported' for whatever no state dict takes, 'damaged' for what is no pickle
 */
export function readTorchPickle(bytes: Buffer, origin: string): TorchValue {
  const stack: Item[] = [];
  const memo = new Map<number, Item>();
  let at = 0;

  const damaged = (why: string) => new EmendError('damaged', `${origin}: ${why}. Copy it again.`);
  const unsupported = (what: string) =>
    new EmendError(
      'unsupported',
      `${origin} holds ${what}, which is no part of a state dict, and is not run. Save only the state dict: torch.save(module.state_dict(), …).`,
    );
  const take = (count: number): number => {
    if (count < 0 || at + count > bytes.length) throw damaged('its description ends too early');
    at += count;
    return at - count;
  };
  const push = (item: Item) => {
    if (stack.length >= MOST_ITEMS) throw damaged('its description is too long');
    stack.push(item);
  };
  const pop = (): Item => {
    if (stack.length === 0) throw damaged('its description makes no sense');
    return stack.pop()!;
  };
  const popValue = (): TorchValue => demandValue(pop());
  const demandValue = (item: Item): TorchValue => {
    if (item instanceof Storage || item instanceof Global || item instanceof Mark)
      throw damaged('its description makes no sense');
    return item;
  };
  /** What lies above the last mark, which goes too. */
  const popToMark = (): Item[] => {
    const from = stack.lastIndexOf(mark);
    if (from < 0) throw damaged('its description makes no sense');
    const items = stack.splice(from);
    items.shift();
    return items;
  };
  const line = (): string => {
    const end = bytes.indexOf(10, at);
    if (end < 0 || end - at > LONGEST_GLOBAL) throw damaged('its description makes no sense');
    const text = bytes.toString('utf8', at, end);
    at = end + 1;
    return text;
  };
  const keep = (place: number) => {
    const top = stack.at(-1);
    if (top === undefined || place > MOST_ITEMS || memo.size >= MOST_ITEMS)
      throw damaged('its description is too long');
    memo.set(place, top);
  };
  const recall = (place: number) => {
    if (!memo.has(place)) throw damaged('its description makes no sense');
    push(memo.get(place)!);
  };
  const top = (): Item => stack.at(-1) ?? null;
  const setItems = (pairs: readonly Item[]) => {
    const dict = top();
    if (!(dict instanceof Map) || pairs.length % 2 !== 0) throw damaged('its description makes no sense');
    for (let i = 0; i < pairs.length; i += 2) {
      const key = pairs[i];
      if (typeof key !== 'string' && typeof key !== 'number')
        throw unsupported('a dict whose keys are no texts');
      dict.set(key, demandValue(pairs[i + 1]!));
    }
  };
  const appendItems = (items: readonly Item[]) => {
    const list = top();
    if (!Array.isArray(list) || Object.isFrozen(list)) throw damaged('its description makes no sense');
    for (const item of items) list.push(demandValue(item));
  };
  /** A tuple: an array that takes nothing more. Storages and globals may be in it, until it is a call's arguments. */
  const tuple = (items: Item[]) => push(Object.freeze(items) as TorchValue[]);
  const reduce = () => {
    const parts = pop() as Item[];
    const what = pop();
    if (!(what instanceof Global) || !Array.isArray(parts)) throw damaged('its description makes no sense');
    if (what.build === 'dict') {
      if (parts.length > 0) throw unsupported('an OrderedDict with arguments');
      return push(new Map());
    }
    if (what.build === 'tensor') return push(tensor(parts));
    const [held] = parts;
    if (what.build === 'parameter' && held instanceof TorchTensor) return push(held);
    throw damaged('its description makes no sense');
  };
  const wholeNumbers = (item: Item | undefined): number[] => {
    const all = Array.isArray(item) ? (item as unknown[]) : [];
    if (
      !Array.isArray(item) ||
      all.length > 16 ||
      !all.every((n) => Number.isSafeInteger(n) && (n as number) >= 0)
    )
      throw damaged('a tensor’s sizes are no numbers');
    return all as number[];
  };
  const tensor = ([storage, offset, sizes, strides]: Item[]): TorchTensor => {
    if (!(storage instanceof Storage)) throw damaged('a tensor has no storage');
    const [shape, stride] = [wholeNumbers(sizes), wholeNumbers(strides)];
    if (!Number.isSafeInteger(offset) || (offset as number) < 0 || shape.length !== stride.length)
      throw damaged('a tensor’s sizes are no numbers');
    const count = shape.reduce((product, size) => product * size, 1);
    // A tensor may repeat elements by a stride of 0; then it takes more room than it has in the file.
    const last = shape.reduce(
      (sum, size, axis) => sum + Math.max(0, size - 1) * stride[axis]!,
      offset as number,
    );
    if (count > storage.elements || (count > 0 && last >= storage.elements))
      throw damaged('a tensor reaches beyond its storage');
    return new TorchTensor(storage, offset as number, shape, stride);
  };
  const storageOf = (id: Item): Storage => {
    const parts = Array.isArray(id) ? (id as Item[]) : [];
    const [kind, type, key, , elements] = parts;
    if (kind !== 'storage' || !(type instanceof Global) || typeof key !== 'string' || !/^\d{1,9}$/.test(key))
      throw damaged('a storage is not described as one');
    if (['dict', 'tensor', 'parameter'].includes(type.build))
      throw damaged('a storage is not described as one');
    if (!Number.isSafeInteger(elements) || (elements as number) < 0) throw damaged('a storage has no size');
    return new Storage(key, type.build as StorageDtype, elements as number);
  };
  const longNumber = (): number => {
    const length = bytes[take(1)]!;
    if (length > 8) throw unsupported('a number of more than 64 bits');
    const from = take(length);
    const value = length === 0 ? 0n : BigInt.asIntN(8 * length, little(bytes.subarray(from, at)));
    if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER))
      throw unsupported('a number of more than 53 bits');
    return Number(value);
  };

  const operations: Readonly<Record<number, () => void>> = {
    [0x28]: () => push(mark), // MARK
    [0x29]: () => tuple([]), // EMPTY_TUPLE
    [0x47]: () => push(bytes.readDoubleBE(take(8))), // BINFLOAT
    [0x4a]: () => push(bytes.readInt32LE(take(4))), // BININT
    [0x4b]: () => push(bytes.readUInt8(take(1))), // BININT1
    [0x4d]: () => push(bytes.readUInt16LE(take(2))), // BININT2
    [0x4e]: () => push(null), // NONE
    [0x51]: () => push(storageOf(pop())), // BINPERSID
    [0x52]: reduce, // REDUCE
    [0x58]: () => {
      // BINUNICODE
      const length = bytes.readUInt32LE(take(4));
      const from = take(length);
      push(bytes.toString('utf8', from, at));
    },
    [0x5d]: () => push([]), // EMPTY_LIST
    [0x61]: () => appendItems([pop()]), // APPEND
    [0x62]: () => {
      // BUILD: the attributes of a state dict (_metadata), which hold no values
      popValue();
      if (!(top() instanceof Map)) throw unsupported('an object with attributes');
    },
    [0x63]: () => {
      // GLOBAL
      const name = `${line()} ${line()}`;
      if (!Object.hasOwn(globals, name)) throw unsupported(`“${name.replace(' ', '.')}”`);
      push(globals[name]!);
    },
    [0x65]: () => appendItems(popToMark()), // APPENDS
    [0x68]: () => recall(bytes.readUInt8(take(1))), // BINGET
    [0x6a]: () => recall(bytes.readUInt32LE(take(4))), // LONG_BINGET
    [0x71]: () => keep(bytes.readUInt8(take(1))), // BINPUT
    [0x72]: () => keep(bytes.readUInt32LE(take(4))), // LONG_BINPUT
    [0x73]: () => {
      // SETITEM
      const value = pop();
      setItems([pop(), value]);
    },
    [0x74]: () => tuple(popToMark()), // TUPLE
    [0x75]: () => setItems(popToMark()), // SETITEMS
    [0x7d]: () => push(new Map()), // EMPTY_DICT
    [0x85]: () => tuple([pop()]), // TUPLE1
    [0x86]: () => {
      // TUPLE2
      const last = pop();
      tuple([pop(), last]);
    },
    [0x87]: () => {
      // TUPLE3
      const last = pop();
      const middle = pop();
      tuple([pop(), middle, last]);
    },
    [0x88]: () => push(true), // NEWTRUE
    [0x89]: () => push(false), // NEWFALSE
    [0x8a]: () => push(longNumber()), // LONG1
  };

  if (bytes[take(1)] !== 0x80 || bytes[take(1)] !== 2)
    throw unsupported('a pickle of another protocol than 2');
  for (;;) {
    const code = bytes[take(1)]!;
    if (code === 0x2e) break; // STOP
    const operation = operations[code];
    if (!operation) throw unsupported(`an operation (0x${code.toString(16)})`);
    operation();
  }
  const result = popValue();
  if (stack.length > 0 || at !== bytes.length) throw damaged('its description makes no sense');
  return result;
}

function little(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
  return value;
}
