/**
 * @file SERAC's scope classifier: whether an input is about a stored edit. Two forms: the distance of text embeddings (Mitchell et al.
 * 2022, § 4), and LiveEdit's for VLMs over the embeddings of all rows, with trained weights (NOTES 24: their BERT left out).
 */
import { EmendError } from '../../errors.ts';
import { openSafetensors, readTensor } from '../../files/safetensors.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import type { WeightOf } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { Graph, type Tensor } from '../../tensor/graph.ts';
import { floatsOf, Session } from '../../tensor/session.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { layQuestion, type QuestionPart } from '../question.ts';
import type { TextEncoder } from '../textEncoder.ts';

export interface ScopeClassifier {
  /** of an input (`target` null) or of an edit, its target behind the prompt */
  represent(part: QuestionPart, target: string | null): Promise<Float32Array>;
  score(edit: Float32Array, input: Float32Array): number;
  /** whether an input of this score is answered by the counterfactual model */
  routes(score: number): boolean;
  dispose(): Promise<void>;
}

/** exp(−|a − b|²) of text embeddings; above `threshold` (published: 0.5) the counterfactual model answers. */
export function distanceClassifier(encode: TextEncoder, threshold: number): ScopeClassifier {
  return {
    represent: ({ prompt }, target) => encode(target === null ? prompt : `${prompt} ${target}`),
    score: (edit, input) => Math.exp(-edit.reduce((sum, value, i) => sum + (value - input[i]!) ** 2, 0)),
    routes: (score) => score > threshold,
    async dispose() {},
  };
}

const parts = ['l_in_norm', 'l_in', 'l_mid', 'l_out'].map((name) => `classifier_proj.${name}`);

/** Shapes of the classifier's weights by the published names; `hidden`: of the decoder, `width`: inside. */
export function classifierShapes(hidden: number, width: number): Map<string, number[]> {
  const [norm, into, middle, out] = parts as [string, string, string, string];
  const linear = (name: string, from: number): Array<[string, number[]]> => [
    [`${name}.weight`, [width, from]],
    [`${name}.bias`, [width]],
  ];
  return new Map<string, number[]>([
    [`${norm}.weight`, [hidden]],
    [`${norm}.bias`, [hidden]],
    ...linear(into, hidden),
    ...linear(middle, width),
    ...linear(out, width),
    ['ln.weight', [width]],
    ['ln.bias', [width]],
  ]);
}

/** Rows' embeddings x [..., hidden] as they are compared: h = in(norm(x)), LN(h + out(relu(mid(h)))) / 32 [..., width]. */
export function projectedRows(x: Tensor, of: WeightOf): Tensor {
  const [norm, into, middle, out] = parts as [string, string, string, string];
  const linear = (y: Tensor, name: string) => f.linear(y, of(`${name}.weight`), of(`${name}.bias`));
  const h = linear(f.layerNorm(x, of(`${norm}.weight`), of(`${norm}.bias`), 1e-5), into);
  const projected = f.add(h, linear(f.relu(linear(h, middle)), out));
  return f.divide(f.layerNorm(projected, of('ln.weight'), of('ln.bias'), 1e-5), 32);
}

/**
 * Of an input's `projectedRows` the mean, the greatest and the least, behind one another; compared by dot product / √size. From `threshold`
 * (published: 10) on the counterfactual model answers.
 * @param weights by the published names
 */
export async function embeddingsClassifier(
  model: VisionLanguageModel,
  weights: AdapterWeights,
  threshold: number,
): Promise<ScopeClassifier> {
  const graph = new Graph();
  const of = (name: string) => {
    const found = weights.get(name);
    if (!found) throw new EmendError('damaged', `The scope classifier lacks ${name}.`);
    return graph.constant(found.data, found.shape);
  };
  const inner = weights.get(`${parts[1]}.weight`)?.shape[1];
  if (inner !== model.hidden)
    throw new EmendError(
      'invalid-input',
      `The scope classifier is for a decoder ${inner} wide; this model’s is ${model.hidden} wide.`,
    );
  const x = f.reshape(graph.input('embeddings', 'float32', [1, 'rows', model.hidden]), [
    'rows',
    model.hidden,
  ]);
  const normed = projectedRows(x, of);
  graph.output('mean', f.mean(normed, [0]));
  graph.output('greatest', f.max(normed, [0]));
  graph.output('least', f.negate(f.max(f.negate(normed), [0])));
  const session = await Session.create(graph, { providers: [model.provider] });
  return {
    async represent({ prompt, visual }, target) {
      const { input } = await layQuestion(model, { prompt, visual }, target);
      const found = await session.run({ embeddings: input.embeddings });
      const [mean, greatest, least] = await Promise.all(
        ['mean', 'greatest', 'least'].map((name) => floatsOf(found[name]!)),
      );
      return Float32Array.from([...mean!, ...greatest!, ...least!]);
    },
    score: (edit, input) =>
      edit.reduce((sum, value, i) => sum + value * input[i]!, 0) / Math.sqrt(edit.length),
    routes: (score) => score >= threshold,
    dispose: () => session.dispose(),
  };
}

/** Weights of a classifier from a file, by the published names. @throws EmendError 'damaged' where they are no floats */
export async function readClassifier(
  path: string,
): Promise<Map<string, { shape: readonly number[]; data: Float32Array }>> {
  const file = await openSafetensors(path);
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const part of [...parts, 'ln']) {
    for (const name of [`${part}.weight`, `${part}.bias`]) {
      const { data, shape } = await readTensor(file, name);
      if (!(data instanceof Float32Array))
        throw new EmendError('damaged', `${path}: ${name} holds no floats.`);
      weights.set(name, { shape, data });
    }
  }
  return weights;
}
