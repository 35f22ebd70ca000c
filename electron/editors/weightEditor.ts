/**
 * @file What the editors share that act by weights: a state is changes of weights, several act by their sum.
 */
import { EmendError } from '../errors.ts';
import type { Decoder } from '../models/decoder.ts';
import { availableMemory } from '../models/memory.ts';
import type { EncodedPrompt } from '../models/prompt.ts';
import type { ModelInput, VisionLanguageModel, WeightChanges } from '../models/visionLanguageModel.ts';
import { changeableParts, decodeChanges, encodeChanges, sumOfChanges } from '../models/weightChanges.ts';
import { Graph } from '../tensor/graph.ts';
import { Session, type SessionOptions } from '../tensor/session.ts';
import type { Editor, EditorNeeds, EditRequest, Effect, Work } from './editor.ts';

export type { EditorNeeds as WeightEditorNeeds, Work } from './editor.ts';
export { betweenSteps } from './work.ts';

/** A request, and what stands in its prompt for the fact (ROME's subject). */
export interface WeightRequest extends EditRequest {
  /** as it is written in the prompt; absent: the last prompt token stands for it */
  readonly subject?: string;
}

/**
 * Bytes that a graph's weights take by themselves: in F32 they stay mapped and are shared with the model's own sessions unless they are
 * prepacked, half precision is widened by each session, packed blocks are laid out anew by each.
 */
function heldBytes(graph: Graph, prepack: boolean): number {
  const held = new Map<string, number>();
  for (const { dtype, origin, name } of graph.nodes.flatMap(({ inputs }) => inputs)) {
    if (origin.kind !== 'file' || (dtype === 'float32' && !prepack)) continue;
    held.set(name, origin.slice.bytes * (dtype === 'float16' || dtype === 'bfloat16' ? 2 : 1));
  }
  return [...held.values()].reduce((sum, bytes) => sum + bytes, 0);
}

/** @throws EmendError 'conflict' where a graph's weights do not fit beside what is open */
function refuseWithoutRoom(graph: Graph, { prepack = false }: SessionOptions): void {
  const [needed, free] = [heldBytes(graph, prepack), availableMemory()];
  if (needed <= free) return;
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
  throw new EmendError(
    'conflict',
    `To make this edit the layers from the one it changes on are held a second time, in ${gigabytes(needed)}, and ${gigabytes(free)} are free. Close other programs, or let the editor change a higher layer.`,
  );
}

/** Compiled graphs by name: made once, let go together. Each session that is made and let go leaks a little. */
export class Sessions {
  readonly #made = new Map<string, Promise<Session>>();
  readonly #options: SessionOptions;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** @throws EmendError 'conflict' where its weights do not fit in memory */
  get(name: string, build: (graph: Graph) => void): Promise<Session> {
    const known = this.#made.get(name);
    if (known) return known;
    const graph = new Graph();
    build(graph);
    refuseWithoutRoom(graph, this.#options);
    const session = Session.create(graph, this.#options);
    this.#made.set(name, session);
    return session;
  }

  async dispose(): Promise<void> {
    for (const session of this.#made.values()) await (await session).dispose();
    this.#made.clear();
  }
}

/** The cut below the lowest layer that is changed; none below layer 0. */
export const cutBelow = (layer: number): number[] => (layer > 0 ? [layer - 1] : []);

/** An editor whose states are changes of weights. */
export abstract class WeightEditor implements Editor<WeightChanges> {
  abstract readonly name: string;
  readonly model: VisionLanguageModel;
  readonly cuts: readonly number[];
  readonly changeable: readonly string[];
  readonly sessions: Sessions;

  constructor(model: VisionLanguageModel, needs: EditorNeeds) {
    this.model = model;
    this.cuts = needs.cuts;
    this.changeable = needs.changeable;
    // As the model's own sessions: weights in F32 files stay mapped and are held once, others a second time. Steps are no slower for it.
    this.sessions = new Sessions(model.decoder.session);
  }

  abstract make(model: VisionLanguageModel, request: WeightRequest, work?: Work): Promise<WeightChanges>;

  encode(state: WeightChanges): Uint8Array {
    return encodeChanges(state);
  }

  decode(bytes: Uint8Array): WeightChanges {
    const { backbone } = this.model.checkpoint;
    return decodeChanges(bytes, this.changeable, changeableParts(backbone.tensors(), backbone.decoder));
  }

  /** Edits act by the sum of their changes. */
  effect(states: readonly WeightChanges[]): Effect {
    return states.length === 0 ? {} : { weights: sumOfChanges(states) };
  }

  dispose(): Promise<void> {
    return this.sessions.dispose();
  }
}

/** A request laid out with its target behind it. */
export interface TeacherForced {
  readonly input: ModelInput;
  readonly encoded: EncodedPrompt;
  readonly targetIds: readonly number[];
}

/** Lays a request out with its target; `before` is put before the prompt's text. */
export async function teacherForced(
  model: VisionLanguageModel,
  { visual, prompt, target }: EditRequest,
  before = '',
): Promise<TeacherForced> {
  const image = (visual as EditRequest['visual'] | null) !== null;
  const { targetIds, ...encoded } = model.prompts.encodeTarget({ prompt: before + prompt, image }, target);
  return { input: await model.lay(encoded, visual), encoded, targetIds };
}

/**
 * The row of a prompt's token in which `subject` ends, at its first place in `prompt`; `before` is what stands before the prompt's text.
 * @throws EmendError 'invalid-input' where the prompt does not have it
 */
export function subjectRow(
  model: VisionLanguageModel,
  { input, encoded }: Pick<TeacherForced, 'input' | 'encoded'>,
  prompt: string,
  subject: string,
  before = '',
): number {
  const at = prompt.indexOf(subject);
  if (at < 0 || subject.trim() === '')
    throw new EmendError(
      'invalid-input',
      `The prompt does not have the subject “${subject}”. Write it as the prompt does.`,
    );
  const { ids, pictures, lastPromptToken } = encoded;
  const upTo = before + prompt.slice(0, at + subject.length);
  const cut = model.prompts.encodePrompt({ prompt: upTo, image: pictures.length > 0 }).ids;
  let shared = 0;
  while (shared < cut.length && cut[shared] === ids[shared]) shared++;
  // Where the next characters merge with the subject's last ones, it ends inside the token after what is shared.
  const whole = model.tokenizer.decode(ids.slice(0, shared)).trimEnd().endsWith(subject.trimEnd());
  const token = Math.min(whole ? shared - 1 : shared, lastPromptToken);
  return token + input.lastPromptRow - lastPromptToken;
}

/** A layer of settings as a layer of the decoder: negative ones count from the end. @throws EmendError 'invalid-input' */
export function layerOf(layer: number, layers: number): number {
  const at = layer < 0 ? layers + layer : layer;
  if (Number.isInteger(layer) && at >= 0 && at < layers) return at;
  throw new EmendError(
    'invalid-input',
    `The decoder has no layer ${layer}: take 0 to ${layers - 1}, or −1 for the last.`,
  );
}

/** The linear layers of an MLP by the papers' words. */
export const mlpParts = ['gate', 'up', 'down'] as const;

/** Canonical names of linear layers of layers' MLPs, layer by layer. @throws EmendError 'invalid-input' for those the decoder does not have */
export function mlpLinears(
  layers: readonly number[],
  parts: ReadonlyArray<(typeof mlpParts)[number]>,
  decoder: Decoder,
): string[] {
  return layers.flatMap((layer) => {
    const { into, out } = decoder.mlp(layerOf(layer, decoder.layers));
    return parts.map((part) => {
      if (part === 'down') return out;
      if (part === 'up') return into.at(-1)!;
      if (into.length > 1) return into[0]!;
      throw new EmendError('invalid-input', 'The adapter changes gates, and this decoder’s MLPs have none.');
    });
  });
}
