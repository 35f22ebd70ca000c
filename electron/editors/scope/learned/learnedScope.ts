/**
 * @file A trained scope opened beside a model.
 */
import { EmendError } from '../../../errors.ts';
import type { Prefill, VisionLanguageModel } from '../../../models/visionLanguageModel.ts';
import { Graph } from '../../../tensor/graph.ts';
import { float32, floatsOf, int64, Session } from '../../../tensor/session.ts';
import { quantiseKey } from '../keyBank.ts';
import type { Reach, Scope, ScopeInput } from '../scope.ts';
import { thresholdAt } from './calibrate.ts';
import { MAX_QUESTION_ROWS, Projector, pictureRows, questionRows } from './features.ts';
import { type AskRows, askInputs, feedAsks, pairInputs } from './feeding.ts';
import { CANDIDATES, keysOf, type ScopeShape, scoresOf } from './network.ts';
import type { ScopeFiles } from './scopeFile.ts';

/** Questions whose rows are kept, so that one asked again is not read again. */
const QUESTIONS_KEPT = 256;

export class LearnedScope implements Scope {
  readonly form = 'learned';
  readonly fingerprint: string;
  readonly keyWidth: number;
  readonly candidates = CANDIDATES;
  readonly cuts: readonly number[];
  readonly curve: Scope['curve'];
  readonly #files: ScopeFiles;
  readonly #projector: Projector;
  readonly #key: Session;
  readonly #scorer: Session;
  readonly #questions = new Map<string, Int8Array>();

  private constructor(files: ScopeFiles, projector: Projector, key: Session, scorer: Session) {
    const { description } = files;
    this.#files = files;
    this.fingerprint = files.fingerprint;
    this.keyWidth = description.shape.keyWidth;
    this.cuts = cutsOfScope(files);
    this.curve = description.curve;
    this.#projector = projector;
    this.#key = key;
    this.#scorer = scorer;
  }

  /** `hidden`: width of the decoder. Throws `invalid-input` when the scope was trained for a decoder of another width. */
  static async open(files: ScopeFiles, hidden: number): Promise<LearnedScope> {
    const { description, projections, weights } = files;
    const { shape, components } = description;
    const trained = projections['visual.embedding'].mean.length;
    if (trained !== hidden)
      throw new EmendError(
        'invalid-input',
        `The scope was trained for a decoder of width ${trained}, and this one has ${hidden}. Train a scope for this model.`,
      );
    const opened: Array<{ dispose(): Promise<void> }> = [];
    const session = async (build: (graph: Graph) => void) => {
      const graph = new Graph();
      build(graph);
      // On the processor whatever the model runs on: the same numbers everywhere, and small.
      const made = await Session.create(graph, { providers: ['cpu'], threads: 1 });
      opened.push(made);
      return made;
    };
    const constants = (graph: Graph) => (name: string) => {
      const { shape: dims, data } = weights.get(name)!;
      return graph.constant(data, dims);
    };
    try {
      const projector = await Projector.create(projections, hidden, components);
      opened.push(projector);
      const key = await session((graph) => {
        const keys = keysOf(askInputs(graph, shape), shape, constants(graph), null);
        for (const [role, value] of Object.entries(keys)) graph.output(role, value);
      });
      const scorer = await session((graph) => {
        const asks = askInputs(graph, shape);
        graph.output('scores', scoresOf(asks, pairInputs(graph), shape, constants(graph), null));
      });
      return new LearnedScope(files, projector, key, scorer);
    } catch (error) {
      for (const made of opened) await made.dispose();
      throw error;
    }
  }

  async describe(model: VisionLanguageModel, prefill: Prefill, prompt: string): Promise<ScopeInput | null> {
    if (!prefill.input.imageRows) return null;
    const { shape, layers } = this.#files.description;
    const { picture } = await this.#projector.project(await pictureRows(model, prefill, layers), null);
    if (picture.length !== shape.rows * shape.pictureWidth)
      throw new EmendError(
        'invalid-input',
        'The picture has another number of visual tokens than the scope was trained on. Train a scope for this model.',
      );
    const rows: AskRows = { picture, question: await this.#questionOf(model, prompt) };
    const out = await this.#key.run(feedRows([rows], shape));
    const [input, asPicture, asThing] = await Promise.all(
      (['input', 'picture', 'thing'] as const).map((role) => floatsOf(out[role]!)),
    );
    return {
      key: quantiseKey(input!),
      editKeys: { picture: quantiseKey(asPicture!), thing: quantiseKey(asThing!) },
      detail: encodeRows(rows),
    };
  }

  async #questionOf(model: VisionLanguageModel, prompt: string): Promise<Int8Array> {
    const known = this.#questions.get(prompt);
    if (known) return known;
    const rows = await questionRows(model, prompt, this.#files.description.layers);
    const { question } = await this.#projector.project(null, rows);
    this.#questions.set(prompt, question);
    if (this.#questions.size > QUESTIONS_KEPT) this.#questions.delete(this.#questions.keys().next().value!);
    return question;
  }

  async score(
    input: Uint8Array,
    edits: readonly { readonly detail: Uint8Array; readonly reach: Reach }[],
  ): Promise<Float32Array> {
    const { shape } = this.#files.description;
    const scores = new Float32Array(edits.length);
    const asked = decodeRows(input, shape);
    for (let start = 0; start < edits.length; start += CANDIDATES) {
      const some = edits.slice(start, start + CANDIDATES);
      const found = await this.#scoreSome(asked, some, shape);
      scores.set(found.subarray(0, some.length), start);
    }
    return scores;
  }

  /** Always runs eight pairs, so that no number depends on how many there are. */
  async #scoreSome(
    asked: AskRows,
    edits: readonly { readonly detail: Uint8Array; readonly reach: Reach }[],
    shape: ScopeShape,
  ): Promise<Float32Array> {
    const rows = edits.map(({ detail }) => decodeRows(detail, shape));
    const padded = Array.from({ length: CANDIDATES }, (_, at) => rows[at] ?? asked);
    const reach = new Float32Array(2 * CANDIDATES);
    for (let at = 0; at < CANDIDATES; at++) {
      const meant = edits[at]?.reach ?? 'picture';
      reach[2 * at + (meant === 'picture' ? 0 : 1)] = 1;
    }
    const out = await this.#scorer.run({
      ...feedRows([asked, ...padded], shape),
      pair_input: int64(new Array<number>(CANDIDATES).fill(0), [CANDIDATES]),
      pair_edit: int64(
        Array.from({ length: CANDIDATES }, (_, at) => at + 1),
        [CANDIDATES],
      ),
      pair_reach: float32(reach, [CANDIDATES, 2]),
    });
    return floatsOf(out['scores']!);
  }

  threshold(committed: number, reach: Reach): number {
    return thresholdAt(this.#files.description.thresholds, committed, reach);
  }

  async dispose(): Promise<void> {
    await this.#projector.dispose();
    await this.#key.dispose();
    await this.#scorer.dispose();
  }
}

export function cutsOfScope({ description: { layers } }: Pick<ScopeFiles, 'description'>): number[] {
  return [layers.low, layers.middle];
}

/** Feeds of asks that are not shared, with a fixed number of question rows: what an ask gives does not depend on the others. */
function feedRows(rows: readonly AskRows[], shape: ScopeShape) {
  const places = rows.map((_, at) => ({ picture: at, question: at }));
  return feedAsks(
    places,
    (at) => rows[at]!.picture,
    (at) => rows[at]!.question,
    shape,
    { tokens: MAX_QUESTION_ROWS },
  );
}

/** Picture rows, then question rows. */
function encodeRows({ picture, question }: AskRows): Uint8Array {
  const bytes = new Uint8Array(picture.length + question.length);
  bytes.set(new Uint8Array(picture.buffer, picture.byteOffset, picture.byteLength));
  bytes.set(new Uint8Array(question.buffer, question.byteOffset, question.byteLength), picture.length);
  return bytes;
}

/** Throws `damaged` when the bytes are not those of a scope of this shape. */
function decodeRows(detail: Uint8Array, shape: ScopeShape): AskRows {
  const size = shape.rows * shape.pictureWidth;
  const rest = detail.byteLength - size;
  if (
    rest < shape.questionWidth ||
    rest % shape.questionWidth !== 0 ||
    rest > MAX_QUESTION_ROWS * shape.questionWidth
  )
    throw new EmendError(
      'damaged',
      'What the scope kept of an edit does not belong to this scope. Check the edit again.',
    );
  // A copy: bytes from a database lie at any offset.
  const all = new Int8Array(new Uint8Array(detail).buffer);
  return { picture: all.subarray(0, size), question: all.subarray(size) };
}
