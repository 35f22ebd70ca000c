/**
 * @file SERAC's training: its scope classifier learns which inputs are about an edit, in LiveEdit's form for VLMs (over the edits of a batch and
 * none of them, NOTES 24), and its counterfactual model to say the target of an edit that is shown before (Mitchell et al. 2022, sec. 3).
 *
 * Published, the counterfactual model is a small language model of its own. Here it is the model itself under a low-rank change that acts in it
 * alone: where an input is about no edit, the model answers as it is.
 */
import { z } from 'zod';
import type { Visual } from '../../models/picture.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { weightsAsInputs } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { float32, floatsOf, int64, type Value } from '../../tensor/session.ts';
import { type Evaluation, evaluationOf, outputGradients, parameterFeeds } from '../../training/trainer.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { layQuestion } from '../question.ts';
import { seeEdits } from '../training/batch.ts';
import type { EditorInTraining, EditorTraining, TrainingStart } from '../training/editorTraining.ts';
import type { TrainingEdit } from '../training/edits.ts';
import { decoderLinears, initialLowRank } from '../training/lowRank.ts';
import { ShownEdits } from '../training/shownEdits.ts';
import { startingWeights, uniformNumbers } from '../training/startingWeights.ts';
import { Sessions } from '../weightEditor.ts';
import { classifierShapes, projectedRows } from './scopeClassifier.ts';

const lossWeight = z.number().min(0).max(100).default(1);

const Settings = z.object({
  width: z.int().min(1).max(16_384).default(1024).meta({
    title: 'Width of the classifier',
    description: '',
  }),
  threshold: z.number().positive().max(1e6).default(10).meta({
    title: 'Threshold',
    description: 'Score from which the counterfactual model answers: that of “about none” in the loss',
  }),
  rank: z.int().min(1).max(1024).default(16).meta({
    title: 'Rank',
    description: 'Of the counterfactual model’s change of every linear layer of the decoder',
  }),
  classifierWeight: z.number().positive().max(100).default(1).meta({
    title: 'Weight of the classifier',
    description: '',
  }),
  editWeight: lossWeight.meta({
    title: 'Weight of the edit',
    description: 'Of reliability of the counterfactual model',
  }),
  generalityWeight: lossWeight.meta({ title: 'Weight of generality', description: '' }),
  endToken: z.boolean().default(true).meta({
    title: 'End token',
    description: 'Targets end with the end token in the loss',
  }),
});
type Settings = z.infer<typeof Settings>;

/** Linear layers as PyTorch begins them; the last norm so that equal inputs score about `threshold` (measured on normal rows). */
export function initialClassifier(
  hidden: number,
  { width, threshold }: Pick<Settings, 'width' | 'threshold'>,
  seed: number,
): AdapterWeights {
  const uniform = uniformNumbers(seed);
  const scale = Math.sqrt((threshold * 1024 * Math.sqrt(3 * width)) / (10 * width));
  return new Map(
    [...classifierShapes(hidden, width)].map(([name, shape]) => {
      const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
      if (name === 'ln.weight') data.fill(scale);
      else if (name.endsWith('norm.weight')) data.fill(1);
      else if (!name.endsWith('norm.bias') && name !== 'ln.bias') {
        const bound = 1 / Math.sqrt(name.includes('l_in.') ? hidden : width);
        for (let i = 0; i < data.length; i++) data[i] = (2 * uniform() - 1) * bound;
      }
      return [name, { shape, data }];
    }),
  );
}

/** Rows that are none add this to what is compared. */
const NONE = -1e9;

/** The scope classifier with the loss it learns by. */
export class ClassifierLoss {
  readonly #model: VisionLanguageModel;
  readonly #weights: AdapterWeights;
  readonly #threshold: number;
  readonly #sessions: Sessions;

  constructor(model: VisionLanguageModel, weights: AdapterWeights, threshold: number) {
    this.#model = model;
    this.#weights = weights;
    this.#threshold = threshold;
    this.#sessions = new Sessions({ ...model.decoder.session, prepack: true });
  }

  /**
   * Mean of −log p(the edit an input is about), over inputs about an edit (its own, rephrased prompt and picture) and about none (locality);
   * p = softmax of the scores beside the batch's edits and the threshold for none.
   */
  async evaluate(edits: readonly TrainingEdit[], seen: readonly Visual[]): Promise<Evaluation> {
    const feeds = await this.feeds(edits, seen);
    const asked = feeds['about']!.dims[0]!;
    const session = await this.#session(edits.length, asked);
    const out = await session.run({ ...feeds, ...parameterFeeds(this.#weights) });
    return evaluationOf(out, this.#weights.keys());
  }

  /**
   * The edits and the inputs that are compared with them, behind one another: `distinct` [distinct, hidden], their rows' embeddings, each once; `rows`
   * int64 [edits + inputs, rows], which these are; `outside` and `shares` [edits + inputs, rows, 1], which tell rows from padding; and `about` int64
   * [inputs], the edit that an input is about, or their number for none.
   */
  async feeds(edits: readonly TrainingEdit[], seen: readonly Visual[]): Promise<Record<string, Value>> {
    const stored = edits.map(({ prompt, target }, at) => ({ prompt, target, visual: seen[at]! }));
    const count = edits.length;
    const asked: Array<{ prompt: string; visual: Visual | null; about: number }> = [];
    for (const [at, { prompt, rephrase, locality, textLocality, extra }] of edits.entries()) {
      const [own, rephrased, other] = [0, 1, 2].map((part) => seen[part * count + at]!) as [
        Visual,
        Visual,
        Visual,
      ];
      asked.push({ prompt, visual: own, about: at }, { prompt: rephrase, visual: own, about: at });
      asked.push({ prompt, visual: rephrased, about: at });
      const none = (text: { prompt: string } | undefined, visual: Visual | null) => {
        if (text) asked.push({ prompt: text.prompt, visual, about: count });
      };
      none(locality, other);
      none(textLocality, null);
      none(extra?.own, own);
      none(extra?.rephrased, rephrased);
      none(extra?.elsewhere, other);
    }
    const laid = [
      ...(await Promise.all(stored.map(({ target, ...part }) => layQuestion(this.#model, part, target)))),
      ...(await Promise.all(asked.map((part) => layQuestion(this.#model, part, null)))),
    ].map(({ input }) => input);
    const { hidden } = this.#model;
    const rows = Math.max(...laid.map((input) => input.rows));
    const places = new BigInt64Array(laid.length * rows);
    const outside = new Float32Array(laid.length * rows).fill(NONE);
    const shares = new Float32Array(laid.length * rows);
    // Many inputs show the same pictures: the classifier looks at each row once.
    const distinct: Float32Array[] = [];
    const known = new Map<string, number>();
    for (const [at, input] of laid.entries()) {
      const embeddings = await floatsOf(input.embeddings);
      for (let row = 0; row < input.rows; row++) {
        const embedding = embeddings.slice(row * hidden, (row + 1) * hidden);
        const key = Buffer.from(embedding.buffer).toString('latin1');
        const place = known.get(key) ?? distinct.push(embedding) - 1;
        known.set(key, place);
        places[at * rows + row] = BigInt(place);
      }
      outside.fill(0, at * rows, at * rows + input.rows);
      shares.fill(1 / input.rows, at * rows, at * rows + input.rows);
    }
    const all = new Float32Array(distinct.length * hidden);
    for (const [place, embedding] of distinct.entries()) all.set(embedding, place * hidden);
    return {
      distinct: float32(all, [distinct.length, hidden]),
      rows: int64(places, [laid.length, rows]),
      outside: float32(outside, [laid.length, rows, 1]),
      shares: float32(shares, [laid.length, rows, 1]),
      about: int64(
        asked.map(({ about }) => about),
        [asked.length],
      ),
    };
  }

  #session(edits: number, asked: number) {
    return this.#sessions.get(`${edits} edits, ${asked} inputs`, (graph) => {
      const of = weightsAsInputs(
        graph,
        new Map([...this.#weights].map(([name, { shape }]) => [name, shape])),
      );
      const count = edits + asked;
      const distinct = projectedRows(
        graph.input('distinct', 'float32', ['distinct', this.#model.hidden]),
        of,
      );
      const normed = f.gather(distinct, graph.input('rows', 'int64', [count, 'rows']));
      const outside = graph.input('outside', 'float32', [count, 'rows', 1]);
      const mean = f.sum(f.multiply(normed, graph.input('shares', 'float32', [count, 'rows', 1])), [1]);
      const greatest = f.max(f.add(normed, outside), [1]);
      const least = f.negate(f.max(f.add(f.negate(normed), outside), [1]));
      const all = f.concat([mean, greatest, least], 1);
      const size = all.shape[1] as number;
      const products = f.matmul(f.slice(all, 0, edits, count), f.slice(all, 0, 0, edits), { b: true });
      const none = graph.constant(new Float32Array(asked).fill(this.#threshold), [asked, 1]);
      const scores = f.concat([f.divide(products, Math.sqrt(size)), none], 1);
      const loss = f.mean(f.crossEntropy(scores, graph.input('about', 'int64', [asked])));
      graph.output('loss', loss);
      graph.output('term.scope', loss);
      outputGradients(graph, loss, [...this.#weights.keys()].map(of));
    });
  }

  dispose(): Promise<void> {
    return this.#sessions.dispose();
  }
}

async function begin(settings: Settings, start: TrainingStart): Promise<EditorInTraining> {
  const { model, vision, seed, from } = start;
  const { rank, threshold, classifierWeight, width: _, ...told } = settings;
  const linears = decoderLinears(model.decoder);
  const change = initialLowRank(linears, rank, seed);
  const classifier = initialClassifier(model.hidden, settings, seed + 1);
  const weights: AdapterWeights = new Map([...change, ...classifier]);
  if (from) startingWeights(weights, from.weights);
  const shown = await ShownEdits.create(model, {
    ...{ ...told, linears, weights: change, localityWeight: 0 },
    before: ({ prompt, target }, visual) => [{ prompt, visual, answer: target }],
  });
  const scope = new ClassifierLoss(model, classifier, threshold);
  return {
    parameters: weights,
    settings: { editor: 'SERAC', ...settings },
    async evaluate(edits) {
      const seen = await seeEdits(vision, edits);
      const counterfactual = await shown.evaluate(edits, seen);
      const { loss, terms, gradients } = await scope.evaluate(edits, seen);
      const weighed = [...gradients].map(
        ([name, gradient]) => [name, gradient.map((value) => value * classifierWeight)] as const,
      );
      return {
        loss: counterfactual.loss + classifierWeight * loss,
        terms: { ...counterfactual.terms, ...terms },
        gradients: new Map([...counterfactual.gradients, ...weighed]),
      };
    },
    weights: () =>
      new Map([...weights].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }])),
    async dispose() {
      await shown.dispose();
      await scope.dispose();
    },
  };
}

export const seracTraining: EditorTraining<Settings> = {
  settings: Settings,
  rate: 1e-4,
  needs: (_, { backbone }) => ({
    cuts: [],
    changeable: decoderLinears(backbone.decoder).map(({ name }) => name),
  }),
  describe: ({ threshold }) => ({ threshold, reading: 'routed' }),
  begin,
};
