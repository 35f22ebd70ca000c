/**
 * @file Adapters trained with the published VisEdit and DualEdit code, opened as they are: an archive of torch.save with each adapter's
 * state dict under the name of the layer it was hooked to, and the run's config.yaml above it.
 */
import { createHash } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { EmendError } from '../../errors.ts';
import { readRegularFile } from '../../files/regularFile.ts';
import { openTorchArchive } from '../../files/torchArchive.ts';
import { type TorchDict, TorchTensor, type TorchValue } from '../../files/torchPickle.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { type AdapterFiles, shapeOfWeights } from './visEdit.ts';

const LARGEST = 2 * 1024 * 1024 * 1024 - 1;
/** Of the published configs. */
const USUAL_HEADS = 8;
/** DualEdit's published threshold of the cosine at the last prompt token: nothing better is known of an adapter nobody calibrated here. */
export const PUBLISHED_THRESHOLD = 0.8;

/** What the run's config.yaml says; what it leaves out is as published. */
export interface RunConfig {
  readonly heads: number;
  readonly influenceMapper: boolean;
  readonly layers: readonly number[];
}

/** What the published code saved: the adapters of a run, by the layers they were hooked to. */
export interface SavedAdapters {
  readonly config: RunConfig;
  readonly adapters: readonly SavedAdapter[];
  /** sha256 of the file and of what its run says */
  readonly fingerprint: string;
}

export interface SavedAdapter {
  readonly layer: number;
  /** what it changes: DualEdit's text adapters are hooked under names of their own */
  readonly rows: 'visual' | 'text';
  readonly weights: AdapterWeights;
}

/**
 * Reads what the published VisEdit or DualEdit code saved.
 * @throws EmendError as `openTorchArchive`; 'damaged' for state dicts that are no adapter's
 */
export async function readSavedAdapters(path: string): Promise<SavedAdapters> {
  const config = await readRunConfig(path);
  const archive = await openTorchArchive(path);
  try {
    const adapters: SavedAdapter[] = [];
    for (const { layer, rows, dict } of dictsOf(archive.value, config, path)) {
      const names = [...dict.keys()].map(String);
      const tensors = names.map((name) => {
        const tensor = dict.get(name);
        if (tensor instanceof TorchTensor) return tensor;
        throw new EmendError('damaged', `${path}: ${name} is no tensor.`);
      });
      const values = await archive.read(tensors);
      const weights = new Map(names.map((name, i) => [name, { shape: tensors[i]!.shape, data: values[i]! }]));
      adapters.push({ layer, rows, weights });
    }
    const fingerprint = createHash('sha256')
      .update(await readRegularFile(path, LARGEST))
      .update(JSON.stringify(config))
      .digest('hex');
    return { config, adapters, fingerprint };
  } finally {
    await archive.close();
  }
}

/**
 * A VisEdit adapter that the published code saved, for a model.
 * @param model fingerprint of the model it is opened with, and the width and number of its decoder's layers
 * @throws EmendError 'unsupported' for several layers at once, 'damaged' for what is no adapter, 'invalid-input' for one of another
 *   width or number of layers than the model's
 */
export function publishedVisEdit(
  { config, adapters, fingerprint }: SavedAdapters,
  path: string,
  model: { readonly fingerprint: string; readonly hidden: number; readonly layers: number },
): AdapterFiles {
  if (adapters.length > 1) {
    const layers = adapters.map(({ layer }) => layer).join(', ');
    throw new EmendError(
      'unsupported',
      `${path} has adapters for several layers (${layers}); one is opened.`,
    );
  }
  const { layer, weights: saved } = adapters[0]!;
  const weights = new Map(
    [...saved].filter(([name]) => config.influenceMapper || !/^influence_mapper\./.test(name)),
  );
  const shape = shapeOfWeights(weights, config.heads, path);
  if (shape.attention !== 'published')
    throw new EmendError('damaged', `${path} is no adapter of the published code.`);
  mustFitLayers(shape.hidden, layer, model, path);
  return {
    description: {
      ...{ editor: 'VisEdit', name: basename(path).slice(0, 200), layer, heads: shape.heads },
      ...{ influenceMapper: shape.influenceMapper, attention: 'published', model: model.fingerprint },
      router: { layer, threshold: PUBLISHED_THRESHOLD },
      training: { source: 'the published code', calibrated: false },
    },
    shape,
    weights,
    fingerprint,
  };
}

/** @throws EmendError 'invalid-input' for an adapter of another width or number of layers than the model's */
export function mustFitLayers(
  hidden: number,
  layer: number,
  model: { readonly hidden: number; readonly layers: number },
  path: string,
): void {
  if (hidden === model.hidden && layer <= model.layers - 2) return;
  throw new EmendError(
    'invalid-input',
    `The adapter ${path} acts at layer ${layer} of a decoder ${hidden} wide; this model has ${model.layers} layers, ${model.hidden} wide. Open the model it was trained for.`,
  );
}

type SavedDict = { layer: number; rows: 'visual' | 'text'; dict: TorchDict };

/** The state dicts of the adapters in what was saved. */
function dictsOf(saved: TorchValue, config: RunConfig, path: string): SavedDict[] {
  const none = new EmendError(
    'damaged',
    `${path} holds no adapter: neither "train_modules" with a state dict for a layer, nor a state dict with mlp_begin.weight.`,
  );
  if (!(saved instanceof Map)) throw none;
  const modules = saved.get('train_modules');
  if (modules === undefined) {
    if (!saved.has('mlp_begin.weight')) throw none;
    const [layer] = config.layers;
    if (layer !== undefined && config.layers.length === 1) return [{ layer, rows: 'visual', dict: saved }];
    throw new EmendError(
      'invalid-input',
      `${path} does not say which layer its adapter is for. Put the run's config.yaml (edit_layers) beside it.`,
    );
  }
  if (!(modules instanceof Map) || modules.size === 0) throw none;
  return [...modules].map(([key, dict]) => {
    const layer = /(?:^|\.)layers\.(\d{1,4})$/.exec(String(key))?.[1];
    if (layer === undefined || !(dict instanceof Map)) throw none;
    return { layer: Number(layer), rows: String(key).startsWith('text_') ? 'text' : 'visual', dict };
  });
}

/** The config.yaml that training writes into the run's folder, one above its checkpoints; only the few lines that matter are read. */
async function readRunConfig(path: string): Promise<RunConfig> {
  const folder = dirname(path);
  let text = '';
  for (const place of [join(folder, 'config.yaml'), join(dirname(folder), 'config.yaml')]) {
    text = await readRegularFile(place, 256 * 1024).then(
      (bytes) => bytes.toString('utf8'),
      () => '',
    );
    if (text !== '') break;
  }
  const heads = /^adaptor_cross_att_head_n:\s*(\d{1,4})\s*$/m.exec(text)?.[1];
  const list = /^edit_layers:\s*(?:\[([\d,\s]*)\]|((?:\n\s*-\s*\d{1,4})+))/m.exec(text);
  return {
    heads: heads === undefined ? USUAL_HEADS : Math.max(1, Number(heads)),
    influenceMapper: !/^\s+add_it:\s*false\s*$/im.test(text),
    layers: (list?.[1] ?? list?.[2] ?? '').match(/\d{1,4}/g)?.map(Number) ?? [],
  };
}
