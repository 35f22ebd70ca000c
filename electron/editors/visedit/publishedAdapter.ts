/**
 * @file Adapters trained with the published VisEdit code, opened as they are: an archive of torch.save with the adapter's state dict
 * under the name of the layer it was hooked to, and the run's config.yaml above it.
 */
import { createHash } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { EmendError } from '../../errors.ts';
import { readRegularFile } from '../../files/regularFile.ts';
import { openTorchArchive } from '../../files/torchArchive.ts';
import { type TorchDict, TorchTensor, type TorchValue } from '../../files/torchPickle.ts';
import { type AdapterFiles, shapeOfWeights } from './visEdit.ts';

const LARGEST = 2 * 1024 * 1024 * 1024 - 1;
/** Of the published configs. */
const USUAL_HEADS = 8;
/** DualEdit's published threshold of the cosine at the last prompt token: nothing better is known of an adapter nobody calibrated here. */
const PUBLISHED_THRESHOLD = 0.8;

/** What the run's config.yaml says; what it leaves out is as published. */
interface RunConfig {
  readonly heads: number;
  readonly influenceMapper: boolean;
  readonly layers: readonly number[];
}

/**
 * Reads an adapter that the published code saved, for a model.
 * @param model fingerprint of the model it is opened with, and the width and number of its decoder's layers
 * @throws EmendError as `openTorchArchive`; 'unsupported' for DualEdit's adapters and several layers at once, 'damaged' for state dicts
 *   that are no adapter's, 'invalid-input' for an adapter of another width or number of layers than the model's
 */
export async function readPublishedAdapter(
  path: string,
  model: { readonly fingerprint: string; readonly hidden: number; readonly layers: number },
): Promise<AdapterFiles> {
  const config = await readRunConfig(path);
  const archive = await openTorchArchive(path);
  try {
    const { layer, dict } = adapterOf(archive.value, config, path);
    const names = [...dict.keys()]
      .map(String)
      .filter((name) => config.influenceMapper || !/^influence_mapper\./.test(name));
    const tensors = names.map((name) => {
      const tensor = dict.get(name);
      if (tensor instanceof TorchTensor) return tensor;
      throw new EmendError('damaged', `${path}: ${name} is no tensor.`);
    });
    const values = await archive.read(tensors);
    const weights = new Map(names.map((name, i) => [name, { shape: tensors[i]!.shape, data: values[i]! }]));
    const shape = shapeOfWeights(weights, config.heads, path);
    if (shape.attention !== 'published')
      throw new EmendError('damaged', `${path} is no adapter of the published code.`);
    if (shape.hidden !== model.hidden || layer > model.layers - 2) {
      throw new EmendError(
        'invalid-input',
        `The adapter ${path} acts at layer ${layer} of a decoder ${shape.hidden} wide; this model has ${model.layers} layers, ${model.hidden} wide. Open the model it was trained for.`,
      );
    }
    return {
      description: {
        ...{ editor: 'VisEdit', name: basename(path).slice(0, 200), layer, heads: shape.heads },
        ...{ influenceMapper: shape.influenceMapper, attention: 'published', model: model.fingerprint },
        router: { layer, threshold: PUBLISHED_THRESHOLD },
        training: { source: 'the published code', calibrated: false },
      },
      shape,
      weights,
      fingerprint: createHash('sha256')
        .update(await readRegularFile(path, LARGEST))
        .update(JSON.stringify(config))
        .digest('hex'),
    };
  } finally {
    await archive.close();
  }
}

/** The state dict of the one adapter in what was saved, and its layer. */
function adapterOf(saved: TorchValue, config: RunConfig, path: string): { layer: number; dict: TorchDict } {
  const none = new EmendError(
    'damaged',
    `${path} holds no adapter: neither "train_modules" with a state dict for a layer, nor a state dict with mlp_begin.weight.`,
  );
  if (!(saved instanceof Map)) throw none;
  const modules = saved.get('train_modules');
  if (modules === undefined) {
    if (!saved.has('mlp_begin.weight')) throw none;
    const [layer] = config.layers;
    if (layer !== undefined && config.layers.length === 1) return { layer, dict: saved };
    throw new EmendError(
      'invalid-input',
      `${path} does not say which layer its adapter is for. Put the run's config.yaml (edit_layers) beside it.`,
    );
  }
  if (!(modules instanceof Map) || modules.size === 0) throw none;
  const layers = [...modules.keys()].map(String);
  const text = layers.filter((name) => name.startsWith('text_'));
  if (text.length > 0) {
    throw new EmendError(
      'unsupported',
      `${path} is an adapter of DualEdit (${layers.join(', ')}): it changes text representations too, and no editor here does. A VisEdit adapter can be opened.`,
    );
  }
  if (layers.length > 1) {
    throw new EmendError(
      'unsupported',
      `${path} has adapters for ${layers.length} layers (${layers.join(', ')}); one is opened.`,
    );
  }
  const layer = /(?:^|\.)layers\.(\d{1,4})$/.exec(layers[0]!)?.[1];
  const dict = modules.get(layers[0]!);
  if (layer === undefined || !(dict instanceof Map)) throw none;
  return { layer: Number(layer), dict };
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
