/**
 * @file What opening a model takes in memory, told before anything is loaded: from its config and the headers of its files alone.
 */
import { totalmem } from 'node:os';
import { EmendError } from '../errors.ts';
import type { Provider } from '../tensor/session.ts';
import type { Checkpoint } from './open.ts';
import { packedBytes } from './packed/file.ts';
import { packedTensors, type WeightForm, weightForms } from './packed/form.ts';

/** Bytes that opening a model in one form and answering with it takes, by what they are for. */
export interface MemoryNeed {
  readonly form: WeightForm;
  /** the decoder's matrices and vectors as they are held */
  readonly decoder: number;
  /** vision tower and projector, which are held in F32 in every form; embeddings as their file has them */
  readonly rest: number;
  /** keys and values, hidden states and scores of a picture and a conversation around it */
  readonly working: number;
  readonly total: number;
  /** of a file to be made first where it is not there; 0 for `dense` */
  readonly file: number;
}

/** The program itself, with the runtime. */
const PROGRAM = 220e6;
/** Rows of text beside a picture's. */
const TEXT_ROWS = 256;
/** Measured over estimated, at most, in `npm run bench -- real-size`. */
const MARGIN = 1.05;

const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** What each form needs on the cpu. `pictureRows`: rows that a picture takes at most. */
export function memoryNeeds(checkpoint: Checkpoint, pictureRows: number): MemoryNeed[] {
  const { backbone, weights } = checkpoint;
  const { decoder } = backbone;
  const ofDecoder = decoder.tensors();
  const packable = packedTensors(checkpoint, '8bit').map(({ name }) => name);
  const inLayers = new Set(packable);
  const inFile = (name: string) => weights.find(name)!.bytes;
  let rest = 0;
  for (const [name, shape] of backbone.tensors()) {
    if (!ofDecoder.has(name)) rest += 4 * count(shape);
    else if (!inLayers.has(name)) rest += inFile(name);
  }
  const rows = Math.min(pictureRows + TEXT_ROWS, decoder.positionLimit);
  const widest = Math.max(...[...ofDecoder].filter(([name]) => inLayers.has(name)).map(([, [out]]) => out!));
  const cache = 2 * decoder.layers * decoder.keyValueHeads * decoder.headDim * rows * 4;
  const scores = 2 * decoder.heads * rows * rows * 4;
  const inner = 3 * rows * Math.min(widest, 8 * decoder.hidden) * 4;
  const working = PROGRAM + 2 * cache + scores + inner;
  return weightForms.map((form) => {
    const held =
      form === 'dense'
        ? [...inLayers].reduce((sum, name) => sum + 4 * count(ofDecoder.get(name)!), 0)
        : packedTensors(checkpoint, form).reduce((sum, { shape, blocks }) => {
            const each = blocks ? blocks.bits / 8 + (4 + blocks.bits / 8) / blocks.size : 4;
            return sum + each * count(shape);
          }, 0);
    const total = Math.ceil(MARGIN * (held + rest + working));
    return {
      form,
      decoder: Math.ceil(held),
      rest,
      working,
      total,
      file: form === 'dense' ? 0 : packedBytes(checkpoint, form),
    };
  });
}

/** Bytes of memory that may still be taken: the system's word, or this process's limit where that is lower. */
export function availableMemory(): number {
  return Math.min(process.availableMemory(), totalmem());
}

/** One way of opening a model on a provider, against what is free. */
export interface OpeningWay {
  readonly form: WeightForm;
  readonly provider: Provider;
  readonly need: MemoryNeed;
  /** null where it is not known: memory of a device of its own */
  readonly fits: boolean | null;
  /** one sentence for people */
  readonly reason: string;
}

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(bytes < 1e9 ? 2 : 1)} GB`;
const said: Readonly<Record<WeightForm, string>> = {
  dense: 'as it is',
  '8bit': 'in 8 bits',
  '4bit': 'in 4 bits',
};

/** Every way of opening a model, in each form on each provider, and the best that fits: the least rounded on the first provider. */
export function openingWays(
  checkpoint: Checkpoint,
  options: {
    readonly pictureRows: number;
    readonly providers: readonly Provider[];
    readonly available: number;
  },
): { readonly ways: OpeningWay[]; readonly proposed: WeightForm | null } {
  const needs = memoryNeeds(checkpoint, options.pictureRows);
  const { available } = options;
  const ways = options.providers.flatMap((provider) =>
    needs.map((need): OpeningWay => {
      const { form, total } = need;
      // Integrated devices share the machine's memory and others have their own: neither says how much is free.
      const known = provider === 'cpu';
      const fits = total > available ? (known ? false : null) : known ? true : null;
      const what = `Opened ${said[form]} it takes about ${gigabytes(total)}`;
      const there = known
        ? `and ${gigabytes(available)} are free.`
        : `on the device, which does not say what is free; ${gigabytes(available)} are free beside it.`;
      return { form, provider, need, fits, reason: `${what}, ${there}` };
    }),
  );
  const proposed = ways.find(({ provider, fits }) => provider === 'cpu' && fits)?.form ?? null;
  return { ways, proposed };
}

/**
 * Refuses what cannot fit, before anything is loaded.
 * @throws EmendError 'conflict', with what would fit
 */
export function refuseWhatCannotFit(
  checkpoint: Checkpoint,
  form: WeightForm,
  pictureRows: number,
  available: number = availableMemory(),
): void {
  const { ways, proposed } = openingWays(checkpoint, { pictureRows, providers: ['cpu'], available });
  const way = ways.find((each) => each.form === form)!;
  if (way.fits) return;
  const instead = proposed && ways.find((each) => each.form === proposed)!;
  const advice = instead
    ? `Open it ${said[instead.form]} (--weights ${instead.form}): that takes ${gigabytes(instead.need.total)}.`
    : 'It does not fit in any form: close other programs, or take a smaller model.';
  throw new EmendError('conflict', `${checkpoint.folder} does not fit in memory. ${way.reason} ${advice}`);
}
