/**
 * @file KE's training: its hyper-network learns changes after which the edit holds while other answers stay within a margin of what they
 * were (De Cao et al. 2021, eqs 1–3: the constraint is relaxed by a multiplier that rises while it is broken).
 */
import { z } from 'zod';
import type { Decoder } from '../../models/decoder.ts';
import * as f from '../../tensor/functions.ts';
import { float32, floatsOf } from '../../tensor/session.ts';
import { type Evaluation, evaluationOf, meanEvaluation, outputGradients } from '../../training/trainer.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { changedTerms, type EditInputs, FrozenInputs } from '../training/changedAnswers.ts';
import type { EditorInTraining, EditorTraining, TrainingStart } from '../training/editorTraining.ts';
import { startingWeights, uniformNumbers } from '../training/startingWeights.ts';
import { cutBelow, Sessions } from '../weightEditor.ts';
import type { EditedWeight } from './hyperNetwork.ts';
import { Ke, type KeDescription, type KeEdit, keWeights } from './ke.ts';
import { gradientsOfReading, isOfLstm } from './textLstm.ts';

const width = (otherwise: number) => z.int().min(1).max(16_384).default(otherwise);

const Settings = z.object({
  lastLayers: z.int().min(1).max(100).default(2).meta({
    title: 'Layers',
    description:
      'The MLPs of so many last layers are changed, by their linear layers back to the residual stream',
  }),
  lstmWidth: width(128).meta({ title: 'Width of the LSTM', description: 'Of either direction' }),
  conditionWidth: width(1024).meta({
    title: 'Width of the condition',
    description: 'What is read of an edit',
  }),
  maxScale: z.number().positive().max(1000).default(1).meta({
    title: 'Greatest scale',
    description: 'Of a change',
  }),
  smoothing: z.number().min(0).max(0.5).default(0.1).meta({ title: 'Label smoothing', description: '' }),
  generalityWeight: z.number().min(0).max(100).default(1).meta({
    title: 'Weight of generality',
    description:
      'Of the rephrased prompt and picture: the paper’s semantically equivalent inputs; 0: without',
  }),
  margin: z.number().min(0).max(10).default(1e-3).meta({
    title: 'Margin',
    description: 'Of the mean KL of other answers; published: it shrinks as edits hold, here it stays',
  }),
  multiplierRate: z.number().min(0).max(10).default(0.1).meta({
    title: 'Rate of the multiplier',
    description: 'By which the constraint’s weight rises while it is broken, from 1',
  }),
  endToken: z.boolean().default(true).meta({
    title: 'End token',
    description: 'Targets end with the end token in the loss',
  }),
});
type Settings = z.infer<typeof Settings>;

/** What the adapter's description says of which layers are changed. */
function which(
  { lastLayers, maxScale }: Pick<Settings, 'lastLayers' | 'maxScale'>,
  decoder: Decoder,
): Pick<KeDescription, 'layers' | 'parts' | 'maxScale'> {
  const count = Math.min(lastLayers, decoder.layers);
  const layers = Array.from({ length: count }, (_, at) => decoder.layers - 1 - at);
  return { layers, parts: ['down'], maxScale };
}

/** Weights as PyTorch's modules begin with: uniform within ±1/√inputs (of an LSTM, its width); weight normalisation keeps them. */
export function initialHyperNetwork(
  edited: readonly EditedWeight[],
  hidden: number,
  { lstmWidth, conditionWidth }: Pick<Settings, 'lstmWidth' | 'conditionWidth'>,
  seed: number,
): AdapterWeights {
  const uniform = uniformNumbers(seed);
  const weights = new Map<string, { shape: number[]; data: Float32Array }>();
  const put = (name: string, shape: number[], bound: number) => {
    const length = shape.reduce((a, b) => a * b, 1);
    weights.set(name, { shape, data: Float32Array.from({ length }, () => (2 * uniform() - 1) * bound) });
  };
  for (const suffix of ['', '_reverse']) {
    const bound = 1 / Math.sqrt(lstmWidth);
    put(`hyper.lstm.weight_ih_l0${suffix}`, [4 * lstmWidth, hidden], bound);
    put(`hyper.lstm.weight_hh_l0${suffix}`, [4 * lstmWidth, lstmWidth], bound);
    for (const bias of ['ih', 'hh']) put(`hyper.lstm.bias_${bias}_l0${suffix}`, [4 * lstmWidth], bound);
  }
  put('hyper.linear.weight', [conditionWidth, 2 * lstmWidth], 1 / Math.sqrt(2 * lstmWidth));
  put('hyper.linear.bias', [conditionWidth], 1 / Math.sqrt(2 * lstmWidth));
  for (const [at, { out, into }] of edited.entries()) {
    for (const [part, size] of [conditionWidth, 2 * (out + into) + 1].entries()) {
      const own = `hyper.cond.${at}.${part}`;
      put(`${own}.weight_v`, [size, conditionWidth], 1 / Math.sqrt(conditionWidth));
      const rows = weights.get(`${own}.weight_v`)!.data;
      const norms = Float32Array.from({ length: size }, (_, row) => {
        const one = rows.subarray(row * conditionWidth, (row + 1) * conditionWidth);
        return Math.sqrt(one.reduce((sum, value) => sum + value * value, 0));
      });
      weights.set(`${own}.weight_g`, { shape: [size, 1], data: norms });
      put(`${own}.bias`, [size], 1 / Math.sqrt(conditionWidth));
    }
  }
  return weights;
}

/** KE's hyper-network with the losses it learns by. */
export class KeLosses {
  readonly ke: Ke;
  readonly #names: readonly string[];
  readonly #settings: Pick<Settings, 'smoothing' | 'generalityWeight' | 'margin'>;
  readonly #sessions: Sessions;

  constructor(
    ke: Ke,
    names: readonly string[],
    settings: Pick<Settings, 'smoothing' | 'generalityWeight' | 'margin'>,
  ) {
    this.ke = ke;
    this.#names = names;
    this.#settings = settings;
    this.#sessions = new Sessions({ ...ke.model.decoder.session, prepack: true });
  }

  /**
   * Loss and gradients of one edit: smoothed NLL of the target + multiplier·(mean KL over the rows of other answers − margin).
   */
  async evaluate(edit: KeEdit, { feeds, sequences }: EditInputs, multiplier: number): Promise<Evaluation> {
    const { ke } = this;
    const { model } = ke;
    const inGraph = this.#names.filter((name) => !isOfLstm(name));
    const session = await this.#sessions.get(`${sequences} sequences`, (graph) => {
      const { weights, network, read } = ke.changedWeights(graph, model.decoder.weightsOf(graph));
      const { smoothing, generalityWeight, margin } = this.#settings;
      const options = { sequences, from: ke.from, kinds: ['locality'], smoothing } as const;
      const terms = changedTerms(graph, model, options, weights);
      const holds = f.add(
        terms.reliability,
        f.multiply(f.add(terms.textGenerality, terms.imageGenerality), generalityWeight),
      );
      const broken = f.subtract(terms.locality, margin);
      const loss = f.add(holds, f.multiply(broken, graph.input('multiplier', 'float32', [])));
      graph.output('loss', loss);
      for (const [name, term] of Object.entries(terms)) graph.output(`term.${name}`, term);
      outputGradients(graph, loss, [...inGraph.map(network), read]);
    });
    const kept = feeds['before']!.dims[0]!;
    const reading = await ke.reading(edit);
    const out = await session.run({
      ...feeds,
      ...ke.editFeeds(edit, reading),
      'weight.locality': float32(new Float32Array(kept).fill(1 / kept), [kept]),
      multiplier: float32(Float32Array.of(multiplier), []),
    });
    const found = evaluationOf(out, inGraph);
    const toRead = await floatsOf(out['gradient.read']!);
    for (const [name, gradient] of gradientsOfReading(reading, toRead)) found.gradients.set(name, gradient);
    return found;
  }

  dispose(): Promise<void> {
    return this.#sessions.dispose();
  }
}

async function begin(settings: Settings, start: TrainingStart): Promise<EditorInTraining> {
  const { model, seed, from } = start;
  const asked = which(settings, model.decoder);
  const weights = initialHyperNetwork(keWeights(asked, model.decoder), model.hidden, settings, seed);
  if (from) startingWeights(weights, from.weights);
  const ke = new Ke(model, asked, weights, 'This training');
  const losses = new KeLosses(ke, [...weights.keys()], settings);
  const frozen = await FrozenInputs.compile(start, ke.from, settings.endToken);
  const multiplier = Float32Array.of(1);
  return {
    parameters: weights,
    kept: new Map([['multiplier', { shape: [1], data: multiplier }]]),
    settings: { editor: 'KE', ...settings },
    async evaluate(edits) {
      const found: Evaluation[] = [];
      for (const edit of edits) {
        const inputs = await frozen.of(edit);
        const request = { visual: inputs.visual, prompt: edit.prompt, target: edit.target };
        const read = await ke.read(request, await ke.oldAnswer(request));
        found.push(await losses.evaluate(read, inputs, multiplier[0]!));
      }
      return meanEvaluation(found);
    },
    stepped({ terms }) {
      const broken = terms['locality']! - settings.margin;
      multiplier[0] = Math.max(0, multiplier[0]! + settings.multiplierRate * broken);
    },
    weights: () =>
      new Map([...weights].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }])),
    async dispose() {
      await frozen.dispose();
      await losses.dispose();
      await ke.dispose();
    },
  };
}

export const keTraining: EditorTraining<Settings> = {
  settings: Settings,
  rate: 3e-4,
  needs(settings, { backbone: { decoder } }) {
    const asked = which(settings, decoder);
    return {
      cuts: cutBelow(Math.min(...asked.layers)),
      changeable: keWeights(asked, decoder).map(({ name }) => name),
    };
  },
  describe: (settings, { backbone }) => which(settings, backbone.decoder),
  begin,
};
