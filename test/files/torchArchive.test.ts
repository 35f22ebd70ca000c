/** @file Archives of torch.save: those a real PyTorch wrote, and those that mean no good. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openTorchArchive } from '../../electron/files/torchArchive.ts';
import { type TorchDict, TorchTensor } from '../../electron/files/torchPickle.ts';
import { fixture } from '../support/fixtures.ts';
import { float32s, pickleOf, storedZip, tensor } from '../support/torchArchives.ts';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-torch-'));
});
afterAll(() => rm(base, { recursive: true, force: true }));

async function openBytes(bytes: Buffer) {
  const path = join(base, 'archive.pt');
  await writeFile(path, bytes);
  const archive = await openTorchArchive(path);
  try {
    const tensors = [...(archive.value as TorchDict).values()].filter(
      (value) => value instanceof TorchTensor,
    );
    return await archive.read(tensors);
  } finally {
    await archive.close();
  }
}

test('what PyTorch wrote is read, in every form of floats, and however its strides lie', async () => {
  const archive = await openTorchArchive(fixture('torch/kinds.pt'));
  try {
    const saved = archive.value as TorchDict;
    const values = async (name: string) => [...(await archive.read([saved.get(name) as TorchTensor]))[0]!];
    expect(await values('f32')).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect((saved.get('transposed') as TorchTensor).shape).toEqual([4, 3]);
    expect(await values('transposed')).toEqual([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
    expect(await values('strided')).toEqual([7, 9, 11, 13, 15, 17]);
    expect(await values('every_other')).toEqual([1, 3, 5, 7]);
    expect(await values('f16')).toEqual([0.5, -2, 65504]);
    expect(await values('bf16')).toEqual([0.5, -3]);
    expect(await values('f64')).toEqual([Math.fround(1 / 3)]);
    expect(await values('scalar')).toEqual([7]);
    expect(await values('empty')).toEqual([]);
    expect(await values('parameter')).toEqual([1, 2]);
    await expect(values('i64')).rejects.toMatchObject({ code: 'unsupported' });
    expect(saved.get('long')).toBe(2 ** 33);
    expect(saved.get('none')).toBe(null);
    expect(saved.get('nested')).toEqual([1, [2.5, 'three', []]]);
    expect([...(saved.get('model') as TorchDict).keys()]).toEqual(['weight', 'bias']);
    const state = (saved.get('opt') as TorchDict).get('state') as TorchDict;
    expect((state.get(0) as TorchDict).get('exp_avg')).toBeInstanceOf(TorchTensor);
    const shared = ['f32', 'transposed'].map((name) => saved.get(name) as TorchTensor);
    await expect(archive.read(shared)).rejects.toMatchObject({ code: 'damaged' });
  } finally {
    await archive.close();
  }
});

test.each([
  ['evil.pt', 'system'],
  ['whole_model.pt', 'torch.nn'],
])('%s is refused, naming what it asks for', async (name, asked) => {
  await expect(openTorchArchive(fixture(`torch/${name}`))).rejects.toMatchObject({
    code: 'unsupported',
    message: expect.stringContaining(asked),
  });
});

const honest = () =>
  [
    ['a/data.pkl', pickleOf({ w: tensor('0', 4, 0, [2, 2], [2, 1]) })],
    ['a/data/0', float32s([1, 2, 3, 4])],
  ] satisfies Array<[string, Buffer]>;

test('an archive of the tests’ own writer is read', async () => {
  expect(await openBytes(storedZip(honest()))).toEqual([Float32Array.of(1, 2, 3, 4)]);
});

describe('refused is an archive whose', () => {
  const asked = (described: Buffer, ...storages: Array<[string, Buffer]>) =>
    storedZip([['a/data.pkl', described], ...storages]);
  const four: [string, Buffer] = ['a/data/0', float32s([1, 2, 3, 4])];
  /** overwrites bytes; from the end where `at` is negative */
  const patched = (bytes: Buffer, at: number, ...values: number[]) => {
    Buffer.from(values).copy(bytes, at < 0 ? bytes.length + at : at);
    return bytes;
  };
  const central = (bytes: Buffer) => bytes.indexOf(Buffer.from([0x50, 0x4b, 1, 2]));
  const hostile: ReadonlyArray<[string, 'damaged' | 'unsupported', () => Buffer]> = [
    [
      'files are compressed',
      'unsupported',
      () => {
        const zip = storedZip(honest());
        return patched(zip, central(zip) + 10, 8);
      },
    ],
    [
      'files are encrypted',
      'unsupported',
      () => {
        const zip = storedZip(honest());
        return patched(zip, central(zip) + 8, 1);
      },
    ],
    [
      'files inflate',
      'damaged',
      () => {
        const zip = storedZip(honest());
        return patched(zip, central(zip) + 24, 255, 255, 255, 127);
      },
    ],
    [
      'files lie elsewhere',
      'damaged',
      () => {
        const zip = storedZip(honest());
        return patched(zip, central(zip) + 42, 7);
      },
    ],
    ['files overlap', 'damaged', () => storedZip(honest(), { overlap: true })],
    ['files have two names', 'damaged', () => patched(storedZip(honest()), 30, 'b'.charCodeAt(0))],
    ['files have one name', 'damaged', () => storedZip([...honest(), four])],
    ['directory lies beyond its end', 'damaged', () => patched(storedZip(honest()), -6, 255, 255, 255, 127)],
    ['directory is shorter than it says', 'damaged', () => patched(storedZip(honest()), -14, 3, 0, 3, 0)],
    [
      'size is told in the large form only',
      'unsupported',
      () => patched(storedZip(honest()), -6, 255, 255, 255, 255),
    ],
    ['end records contradict each other', 'damaged', () => storedZip(honest(), { large: { count: 7 } })],
    ['parts are split', 'unsupported', () => patched(storedZip(honest()), -18, 1)],
    ['end is cut off', 'unsupported', () => storedZip(honest()).subarray(0, -3)],
    [
      'middle is cut out',
      'damaged',
      () => {
        const zip = storedZip(honest());
        return Buffer.concat([zip.subarray(0, 60), zip.subarray(90)]);
      },
    ],
    [
      'bytes changed',
      'damaged',
      () => {
        const zip = storedZip(honest());
        return patched(zip, zip.indexOf(float32s([3, 4])), 9);
      },
    ],
    ['description is missing', 'unsupported', () => storedZip([four])],
    ['descriptions are two', 'unsupported', () => storedZip([...honest(), ['b/data.pkl', pickleOf({})]])],
    ['storage is missing', 'damaged', () => asked(pickleOf({ w: tensor('0', 4, 0, [4], [1]) }))],
    [
      'storage is shorter than it says',
      'damaged',
      () => asked(pickleOf({ w: tensor('0', 5, 0, [4], [1]) }), four),
    ],
    [
      'tensor begins beyond its storage',
      'damaged',
      () => asked(pickleOf({ w: tensor('0', 4, 4, [1], [1]) }), four),
    ],
    [
      'tensor reaches beyond its storage',
      'damaged',
      () => asked(pickleOf({ w: tensor('0', 4, 0, [4], [2]) }), four),
    ],
    [
      'tensor repeats one element for ever',
      'damaged',
      () => asked(pickleOf({ w: tensor('0', 4, 0, [1e9], [0]) }), four),
    ],
    [
      'tensor has no end',
      'damaged',
      () => asked(pickleOf({ w: tensor('0', 4, 0, [2 ** 31 - 1, 2 ** 31 - 1], [0, 0]) }), four),
    ],
    ['tensor steps backwards', 'damaged', () => asked(pickleOf({ w: tensor('0', 4, 3, [4], [-1]) }), four)],
    [
      'tensor has other strides than sizes',
      'damaged',
      () => asked(pickleOf({ w: tensor('0', 4, 0, [2, 2], [1]) }), four),
    ],
    [
      'storage is named by a path',
      'damaged',
      () => asked(pickleOf({ w: tensor('../0', 4, 0, [4], [1]) }), four),
    ],
    [
      'tensors share a storage',
      'damaged',
      () => asked(pickleOf({ v: tensor('0', 4, 0, [4], [1]), w: tensor('0', 4, 0, [4], [1]) }), four),
    ],
    [
      'big-endian numbers are told',
      'unsupported',
      () => storedZip([...honest(), ['a/byteorder', Buffer.from('big')]]),
    ],
  ];
  test.each(hostile)('%s', async (_what, code, bytes) => {
    await expect(openBytes(bytes())).rejects.toMatchObject({ code });
  });

  const op = (...parts: Array<number | string | Buffer>) =>
    Buffer.concat(parts.map((part) => (typeof part === 'number' ? Buffer.from([part]) : Buffer.from(part))));
  const pickles: ReadonlyArray<[string, 'damaged' | 'unsupported', Buffer]> = [
    [
      'asks for os.system',
      'unsupported',
      op(0x80, 2, 'cos\nsystem\n', 0x58, Buffer.from([1, 0, 0, 0]), 'x', 0x85, 'R.'),
    ],
    ['asks for a global by another name', 'unsupported', op(0x80, 2, 'cbuiltins\neval\n.')],
    ['asks for what every object has', 'unsupported', op(0x80, 2, 'c__proto__\nconstructor\n.')],
    ['makes an instance', 'unsupported', op(0x80, 2, '(ios\nsystem\n.')],
    ['makes an object', 'unsupported', op(0x80, 2, 'ccollections\nOrderedDict\n)', 0x81, '.')],
    ['is of protocol 4', 'unsupported', op(0x80, 4, 'N.')],
    ['calls what is no builder', 'damaged', op(0x80, 2, 'N)R.')],
    ['builds a tensor of nothing', 'damaged', op(0x80, 2, 'ctorch._utils\n_rebuild_tensor_v2\n)R.')],
    ['takes what it never put', 'damaged', op(0x80, 2, 'h', 9, '.')],
    ['pops an empty stack', 'damaged', op(0x80, 2, 's.')],
    ['has no mark', 'damaged', op(0x80, 2, '}u.')],
    ['has a text longer than itself', 'damaged', op(0x80, 2, 'X', Buffer.from([255, 255, 255, 127]), 'x.')],
    ['has a huge memo', 'damaged', op(0x80, 2, 'Nr', Buffer.from([255, 255, 255, 255]), '.')],
    ['has a number of a thousand digits', 'unsupported', op(0x80, 2, 0x8a, 200, Buffer.alloc(200, 1), '.')],
    ['appends to a tuple', 'damaged', op(0x80, 2, ')Na.')],
    ['never ends', 'damaged', op(0x80, 2, Buffer.alloc(1000, 'N'))],
    ['goes on after its end', 'damaged', op(0x80, 2, 'N.N')],
    ['leaves things behind', 'damaged', op(0x80, 2, 'NN.')],
    ['gives its tensor away as a call', 'damaged', op(0x80, 2, 'ctorch\nFloatStorage\n)R.')],
  ];
  test.each(pickles)('description %s', async (_what, code, described) => {
    await expect(openBytes(asked(described, four))).rejects.toMatchObject({ code });
  });

  test('description is deep', async () => {
    const deep = Buffer.concat([
      op(0x80, 2),
      Buffer.alloc(400_000, ']'),
      Buffer.alloc(399_999, 'a'),
      op('.'),
    ]);
    const path = join(base, 'deep.pt');
    await writeFile(path, asked(deep));
    const archive = await openTorchArchive(path);
    await archive.close();
    const long = Buffer.concat([op(0x80, 2), Buffer.alloc(2_000_000, ']'), op('.')]);
    await expect(openBytes(asked(long))).rejects.toMatchObject({ code: 'damaged' });
  });

  test('file is none', async () => {
    await expect(openTorchArchive(base)).rejects.toMatchObject({ code: 'invalid-input' });
    await expect(openBytes(Buffer.from('hello'))).rejects.toMatchObject({ code: 'damaged' });
    await expect(openBytes(await readFile(fixture('images/a.png')))).rejects.toMatchObject({
      code: 'unsupported',
    });
  });
});
