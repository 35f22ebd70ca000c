/**
 * @file MEND's training: its networks learn to turn an edit's gradient into a change that holds and leaves other answers as they are
 * (Mitchell et al. 2022, eq. 4; in LiveEdit's form for VLMs, NOTES "MEND", 9–11 of the fixtures' README).
 */
import { z } from 'zod';
import type { Decoder } from '../../models/decoder.ts';
import { weightsAsInputs } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import type { Tensor } from '../../tensor/graph.ts';
import {
  type Evaluation,
  evaluationOf,
  meanEvaluation,
  outputGradients,
  parameterFeeds,
} from '../../training/trainer.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { changedTerms, type EditInputs, FrozenInputs, localityKinds } from '../training/changedAnswers.ts';
import type { EditorInTraining, EditorTraining, TrainingStart } from '../training/editorTraining.ts';
import { startingWeights, uniformNumbers } from '../training/startingWeights.ts';
import { cutBelow, mlpParts, Sessions } from '../weightEditor.ts';
import { type EditGradient, Mend, type MendDescription, mendModules } from './mend.ts';
import { deviation, type EditedModule, networkName, withRows } from './network.ts';

const lossWeight = (otherwise: number) => z.number().min(0).max(100).default(otherwise);

const Settings = z.object({
  lastLayers: z.int().min(1).max(100).default(3).meta({
    title: 'Layers',
    description: 'The MLPs of so many last layers are changed',
  }),
  parts: z.enum(['all', 'up and down', 'down']).default('all').meta({
    title: 'Parts of an MLP',
    description: 'Linear layers that are changed; EasyEdit: up and down',
  }),
  rank: z.int().min(1).max(16_384).default(1920).meta({
    title: 'Rank',
    description: 'Of the networks’ layers',
  }),
  networkLayers: z.int().min(1).max(8).default(2).meta({ title: 'Layers of a network', description: '' }),
  editRate: z.number().positive().max(1).default(1e-4).meta({
    title: 'Edit rate',
    description: 'What a change is multiplied by at first; learnt from there',
  }),
  editWeight: lossWeight(0.1).meta({ title: 'Weight of the edit', description: 'Of reliability' }),
  generalityWeight: lossWeight(0.1).meta({ title: 'Weight of generality', description: '' }),
  localityWeight: lossWeight(0.1).meta({
    title: 'Weight of locality',
    description: 'Original: 1',
  }),
  endToken: z.boolean().default(true).meta({
    title: 'End token',
    description: 'Targets end with the end token in the loss; published: without',
  }),
});
type Settings = z.infer<typeof Settings>;

/**
 * Edit rates are trained in this many times the first one, because they must find their size before the networks learn: published, they have a
 * learning rate of their own, a hundred times the networks'.
 */
const EDIT_RATE_UNIT = 1000;

/** What the adapter's description says of which layers are changed. */
function which(
  { lastLayers, parts }: Pick<Settings, 'lastLayers' | 'parts'>,
  decoder: Decoder,
): Pick<MendDescription, 'layers' | 'parts' | 'rows'> {
  const count = Math.min(lastLayers, decoder.layers);
  const gated = decoder.mlp(decoder.layers - 1).into.length > 1;
  const chosen = {
    all: mlpParts.filter((part) => gated || part !== 'gate'),
    'up and down': mlpParts.filter((part) => part !== 'gate'),
    down: mlpParts.filter((part) => part === 'down'),
  };
  return {
    layers: Array.from({ length: count }, (_, at) => decoder.layers - count + at),
    parts: [...chosen[parts]],
    rows: 'mean',
  };
}

/** Networks that hand on what they read: u 0, v normal, as published. Their statistics have seen nothing. */
function initialNetworks(
  modules: readonly EditedModule[],
  { rank, networkLayers, editRate }: Settings,
  seed: number,
): AdapterWeights {
  const uniform = uniformNumbers(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const weights = new Map<string, { shape: number[]; data: Float32Array }>();
  const put = (name: string, shape: number[], of: () => number) => {
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, of);
    weights.set(name, { shape, data });
  };
  for (const { into, out } of modules) {
    const at = networkName({ into, out });
    if (weights.has(`${at}.k`)) continue;
    const modes = modules.filter((other) => networkName(other) === at).length;
    const width = into + out;
    for (let layer = 0; layer < networkLayers; layer++) {
      const own = `${at}.mlp.layers.${layer}`;
      put(`${own}.u`, [width, Math.min(rank, width)], () => 0);
      put(`${own}.v`, [Math.min(rank, width), width], normal);
      put(`${own}.bias`, [width], () => 0);
      put(`${own}.mode_scale.weight`, [modes, width], () => 1);
      put(`${own}.mode_shift.weight`, [modes, width], () => 0);
    }
    put(`${at}.k`, [1], () => 0);
    for (const [of, size] of [
      ['u', into],
      ['v', out],
    ] as const) {
      put(`${at}.${of}_mean`, [size], () => 0);
      put(`${at}.${of}_s`, [size], () => 0);
      put(`${at}.${of}_std`, [size], () => 0);
    }
  }
  // The paper subtracts a learnt rate times the gradient, the code adds it: it starts as the paper has it.
  put('edit_lrs', [modules.length], () => -editRate);
  return weights;
}

const isStatistic = (name: string) => /\.(?:k|[uv]_(?:mean|s|std))$/.test(name);

/** MEND's networks with the losses they learn by. */
export class MendLosses {
  readonly mend: Mend;
  readonly #weights: AdapterWeights;
  readonly #settings: Pick<Settings, 'editWeight' | 'generalityWeight' | 'localityWeight'>;
  readonly #sessions: Sessions;
  /** what edit rates are trained in */
  readonly #unit: number;

  constructor(
    mend: Mend,
    weights: AdapterWeights,
    settings: Pick<Settings, 'editWeight' | 'generalityWeight' | 'localityWeight'>,
    unit = 1,
  ) {
    this.mend = mend;
    this.#weights = weights;
    this.#settings = settings;
    this.#unit = unit;
    this.#sessions = new Sessions({ ...mend.model.decoder.session, prepack: true });
  }

  /** The weights that are trained; `edit_lrs` in units. */
  get parameters(): AdapterWeights {
    return new Map([...this.#weights].filter(([name]) => !isStatistic(name)));
  }

  /** The running statistics take up an edit's rows. In training they do so before they are used. */
  observe({ modules }: EditGradient): void {
    const at = (name: string) => this.#weights.get(name)!.data;
    for (const [place, module] of this.mend.modules.entries()) {
      const network = networkName(module);
      const count = at(`${network}.k`)[0]!;
      for (const [of, rows] of [
        ['u', modules[place]!.u],
        ['v', modules[place]!.delta],
      ] as const) {
        const before = { count, mean: at(`${network}.${of}_mean`), squares: at(`${network}.${of}_s`) };
        const after = withRows(before, rows);
        before.mean.set(after.mean);
        before.squares.set(after.squares);
        if (after.count > 1) at(`${network}.${of}_std`).set(deviation(after));
        if (of === 'v') at(`${network}.k`)[0] = after.count;
      }
    }
  }

  /** Loss and gradients of one edit with this gradient. */
  async evaluate(gradient: EditGradient, { feeds, sequences }: EditInputs): Promise<Evaluation> {
    const { mend } = this;
    const { decoder } = mend.model;
    const names = [...this.parameters.keys()];
    const session = await this.#sessions.get(`${sequences} sequences`, (graph) => {
      const network = weightsAsInputs(graph, mend.shapes());
      const rate = (at: number) => f.multiply(f.slice(network('edit_lrs'), 0, at, at + 1), this.#unit);
      const weights = mend.changedWeights(graph, decoder.weightsOf(graph), network, rate);
      const kinds = localityKinds(sequences);
      const terms = changedTerms(graph, mend.model, { sequences, from: mend.from, kinds }, weights);
      const { editWeight, generalityWeight, localityWeight } = this.#settings;
      const loss = [
        f.multiply(terms.reliability, editWeight),
        f.multiply(f.add(terms.textGenerality, terms.imageGenerality), generalityWeight),
        ...kinds.map((kind) => f.multiply((terms as Record<string, Tensor>)[kind]!, localityWeight)),
      ].reduce((a, b) => f.add(a, b));
      graph.output('loss', loss);
      for (const [name, term] of Object.entries(terms)) graph.output(`term.${name}`, term);
      outputGradients(
        graph,
        loss,
        names.map((name) => network(name)),
      );
    });
    const out = await session.run({
      ...feeds,
      ...mend.rowFeeds(gradient.modules),
      ...parameterFeeds(new Map([...this.#weights].filter(([name]) => mend.shapes().has(name)))),
    });
    return evaluationOf(out, names);
  }

  dispose(): Promise<void> {
    return this.#sessions.dispose();
  }
}

async function begin(settings: Settings, start: TrainingStart): Promise<EditorInTraining> {
  const { model, seed, from } = start;
  const asked = which(settings, model.decoder);
  const weights = initialNetworks(mendModules(asked, model.decoder), settings, seed);
  if (from) startingWeights(weights, from.weights);
  const unit = EDIT_RATE_UNIT * settings.editRate;
  const rates = weights.get('edit_lrs')!.data;
  for (const [at, value] of rates.entries()) rates[at] = value / unit;
  const mend = new Mend(model, asked, weights, 'This training');
  const losses = new MendLosses(mend, weights, settings, unit);
  const frozen = await FrozenInputs.compile(start, mend.from, settings.endToken);
  return {
    parameters: losses.parameters,
    kept: new Map([...weights].filter(([name]) => isStatistic(name))),
    settings: { editor: 'MEND', ...settings },
    async evaluate(edits) {
      const found: Evaluation[] = [];
      for (const edit of edits) {
        const inputs = await frozen.of(edit);
        const { prompt, target } = edit;
        const gradient = await mend.gradient({ visual: inputs.visual, prompt, target });
        losses.observe(gradient);
        found.push(await losses.evaluate(gradient, inputs));
      }
      return meanEvaluation(found);
    },
    weights: () =>
      new Map(
        [...weights].map(([name, { shape, data }]) => [
          name,
          { shape, data: name === 'edit_lrs' ? data.map((value) => value * unit) : data.slice() },
        ]),
      ),
    async dispose() {
      await frozen.dispose();
      await losses.dispose();
      await mend.dispose();
    },
  };
}

export const mendTraining: EditorTraining<Settings> = {
  settings: Settings,
  rate: 1e-6,
  needs(settings, { backbone: { decoder } }) {
    const asked = which(settings, decoder);
    return {
      cuts: cutBelow(Math.min(...asked.layers)),
      changeable: mendModules(asked, decoder).map(({ name }) => name),
    };
  },
  describe: (settings, { backbone }) => which(settings, backbone.decoder),
  exact: (name) => isStatistic(name) || name === 'edit_lrs',
  begin,
};
