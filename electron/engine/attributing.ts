/**
 * @file Attribution in the open model: what its layers, its modalities and the parts of a picture contribute to an answer, on one input
 * or the mean over several, and which layer that suggests to edit.
 */
import type {
  InfluenceMap,
  LayerProposal,
  ModalityReport,
  ModuleReport,
  VisualReport,
} from '../api/contract.ts';
import { editedInput, withAddedLayers } from '../attribution/editedInput.ts';
import { explainProposal, proposeLayer } from '../attribution/layerProposal.ts';
import { ModalityAttention, type ModalityAttentions } from '../attribution/modalityAttention.ts';
import { ModalityNoise, type ModalityNoises, modalities } from '../attribution/modalityNoise.ts';
import {
  type MeanContributions,
  ModuleAttribution,
  type ModuleContributions,
  meanContributions,
} from '../attribution/moduleContribution.ts';
import { PictureAttribution, paperPerturbation } from '../attribution/visualContribution.ts';
import type { Prepared } from '../editors/editedModel.ts';
import type { EditState, Work } from '../editors/editor.ts';
import { layQuestion } from '../editors/question.ts';
import { EmendError } from '../errors.ts';
import { readEditingSet } from '../evaluation/editingSet.ts';
import { probeOf } from '../evaluation/sets/record.ts';
import { readPictureFile } from '../files/picture.ts';
import { type PictureLayout, whole } from '../models/picture.ts';
import type { ModelInput } from '../models/visionLanguageModel.ts';
import { makingOf, type OpenModel } from './openModel.ts';
import type { AttributedInputs, EngineEdit, EngineOperations, OperationContext } from './protocol.ts';

/** Inputs told one by one. */
const TOLD_INPUTS = 100;

/** A layout's cells as maps show them; rows without a place in the picture are a line over all of it. */
export function mapOf(
  layout: PictureLayout,
): Pick<InfluenceMap, 'rows' | 'columns' | 'placed' | 'window'> & { readonly cells: readonly number[] } {
  const { grid, window, cells } = layout.map ?? {
    grid: { height: 1, width: layout.rows },
    window: whole,
    cells: Array.from({ length: layout.rows }, (_, row) => row),
  };
  return { rows: grid.height, columns: grid.width, window, cells, ...(!layout.map && { placed: false }) };
}

/** An input to attribute, before its picture is read. */
interface Asked {
  readonly prompt: string;
  readonly picture: () => Promise<Uint8Array> | Uint8Array;
  /** an unrelated answer, where the set has one */
  readonly unrelated: string | null;
}

async function askedOf(of: AttributedInputs): Promise<Asked[]> {
  if ('inputs' in of) {
    if (of.inputs.length === 0)
      throw new EmendError('invalid-input', 'There is nothing to attribute: no edit was named.');
    return of.inputs.map(({ picture, prompt }) => ({ prompt, picture: () => picture, unrelated: null }));
  }
  const set = await readEditingSet(of.file, { images: of.images, limit: of.limit });
  return set.records.map((record) => ({
    prompt: record.prompt + of.suffix,
    picture: async () => readPictureFile(await set.picturePath(record, record.picture)),
    unrelated: probeOf(record, 'image-locality')?.answer ?? null,
  }));
}

function stopIfAsked({ signal }: OperationContext): void {
  if (signal.aborted) throw new EmendError('cancelled', 'Stopped.');
}

/** Tells progress, lets messages in, and stops where that was asked for. */
async function between(
  context: OperationContext,
  stage: string,
  done: number,
  total: number,
  unit: string,
): Promise<void> {
  context.send({ kind: 'progress', stage, done, total, unit });
  await new Promise((resolve) => setImmediate(resolve));
  stopIfAsked(context);
}

/**
 * Lays each input out in turn and measures it, with progress before each and after the last. What measures holds the decoder's weights:
 * it is compiled for that, and the model's own sessions are let go before.
 */
async function measureEach<Part extends { dispose(): Promise<void> }>(
  model: OpenModel,
  asked: readonly Asked[],
  context: OperationContext,
  stage: string,
  compile: () => Promise<Part>,
  measure: (part: Part, input: ModelInput, asked: Asked) => Promise<void>,
): Promise<void> {
  const backbone = model.edited.model;
  await backbone.releaseDecoder();
  const part = await compile();
  try {
    for (const [done, one] of asked.entries()) {
      await between(context, stage, done, asked.length, 'inputs');
      const question = { prompt: one.prompt, visual: await model.see(await one.picture()) };
      await measure(part, (await layQuestion(backbone, question, null)).input, one);
    }
    await between(context, stage, asked.length, asked.length, 'inputs');
  } finally {
    await part.dispose();
  }
}

/** What an edit does to an input, and the decoder that attribution sees it in: told by the model's own sessions, before they are let go. */
async function edited(model: OpenModel, edit: EngineEdit, prepared: Prepared, work: Work) {
  const state = await model.stateFor(edit, work);
  const { editor, model: backbone } = model.edited;
  if (!editor)
    throw new EmendError('conflict', 'No editor is open, so no edit can act. Open the model with one.');
  const effect = editor.effect([state]);
  if (effect.weights)
    throw new EmendError(
      'unsupported',
      `${editor.name} changes weights, and attribution sees the unedited ones only.`,
    );
  const prefill = await model.edited.under(prepared, effect);
  const input = effect.rows ? await editedInput(backbone, prefill, effect.rows) : prefill.input;
  const decoder = withAddedLayers(backbone.decoder, (editor.cuts.at(-1) ?? -1) + 1);
  return { state, input, decoder };
}

const seconds = (started: number) => (performance.now() - started) / 1000;
const plain = ({ attention, mlp, layer }: MeanContributions) => ({
  attention: [...attention],
  mlp: [...mlp],
  layer: [...layer],
});

/** Mean over inputs of numbers by layer. */
function meanOf(all: ReadonlyArray<ArrayLike<number>>): number[] {
  return Array.from(all[0]!, (_, at) => all.reduce((sum, values) => sum + values[at]!, 0) / all.length);
}

export async function attributeModules(
  model: OpenModel,
  { of, token, control, variant, edit }: EngineOperations['attributeModules']['input'],
  context: OperationContext,
): Promise<ModuleReport> {
  const started = performance.now();
  const asked = await askedOf(of);
  const { tokenizer, prompts, decoder } = model.edited.model;
  const firstToken = (prompt: string, text: string) =>
    prompts.encodeTarget({ prompt, image: true }, text).targetIds[0]!;
  const text = (id: number) => tokenizer.decode([id]).trim() || tokenizer.tokenText(id);
  const keyOf = (prompt: string) => (token === null ? ('predicted' as const) : firstToken(prompt, token));
  const last = asked.at(-1)!;
  const acting =
    edit &&
    (await edited(
      model,
      edit,
      await model.edited.prepare(await model.see(await last.picture()), last.prompt),
      makingOf(context),
    ));
  const found: ModuleContributions[] = [];
  const wrong: ModuleContributions[] = [];
  const inputs: ModuleReport['inputs'] = [];
  let before: number | null = null;
  const compile = (of: typeof decoder) => ModuleAttribution.compile(of, variant);
  await measureEach(
    model,
    asked,
    context,
    'Attributing',
    () => compile(decoder),
    async (attribution, input, { prompt, unrelated }) => {
      const key = keyOf(prompt);
      const given = control ?? unrelated;
      const other = given === null ? before : firstToken(prompt, given);
      const [own, wrongly] = await attribution.run(input, other === null ? [key] : [key, other]);
      // What is right here is no control.
      const controls = wrongly && wrongly.keyToken !== own!.keyToken ? wrongly : null;
      found.push(own!);
      if (controls) wrong.push(controls);
      before = own!.keyToken;
      if (inputs.length < TOLD_INPUTS) {
        inputs.push({ prompt, key: text(own!.keyToken), wrong: controls && text(controls.keyToken) });
      }
    },
  );
  let acted: ModuleContributions | null = null;
  if (acting) {
    const again = await compile(acting.decoder);
    try {
      acted = (await again.run(acting.input, [keyOf(last.prompt)]))[0]!;
    } finally {
      await again.dispose();
    }
  }
  const bars = (contributions: readonly ModuleContributions[]) => plain(meanContributions(contributions));
  return {
    ...{ variant, inputs, count: found.length, contribution: bars(found) },
    control: wrong.length > 0 ? { ...bars(wrong), count: wrong.length } : null,
    edited: acted && { ...bars([acted]), keys: [text(acted.keyToken)] },
    seconds: seconds(started),
  };
}

export async function attributeVisual(
  model: OpenModel,
  request: EngineOperations['attributeVisual']['input'],
  context: OperationContext,
): Promise<VisualReport> {
  const started = performance.now();
  const { picture, prompt, perturbation, seed, edit } = request;
  const { decoder, tokenizer } = model.edited.model;
  const layers = request.layers ?? Array.from({ length: decoder.layers }, (_, layer) => layer);
  const visual = await model.see(picture);
  const prepared = await model.edited.prepare(visual, prompt);
  const { cells, ...map } = mapOf(visual.layout);
  const total = layers.length * (edit ? 2 : 1);
  const attributed = async (input: ModelInput, of: typeof decoder, doneBefore: number) => {
    const attribution = await PictureAttribution.compile(of, layers, perturbation);
    try {
      const found = await attribution.run(input, seed, (done) =>
        between(context, 'Attributing', doneBefore + done, total, 'layers'),
      );
      return found.map(({ mean }) => cells.map((row) => mean[row]!));
    } finally {
      await attribution.dispose();
    }
  };
  const first = async (states: readonly EditState[]) => {
    const { tokens } = await model.edited.answer(prepared, states, { maxNewTokens: 1 });
    return tokens[0] ? tokenizer.decode([tokens[0].id]).trim() : '';
  };
  await between(context, 'Attributing', 0, total, 'layers');
  const acting = edit && (await edited(model, edit, prepared, makingOf(context)));
  const found = acting && (await model.edited.influence(prepared, acting.state));
  const keys = { before: await first([]), after: acting && (await first([acting.state])) };
  await model.edited.model.releaseDecoder();
  const before = await attributed(prepared.prefill.input, decoder, 0);
  const after = acting && (await attributed(acting.input, acting.decoder, layers.length));
  return {
    ...map,
    layers: layers.map((layer, at) => ({ layer, before: before[at]!, after: after?.[at] ?? null })),
    influence: found
      ? {
          ...map,
          values: cells.map((row) => found.values[row]!),
          layer: found.layer,
        }
      : null,
    keys,
    seconds: seconds(started),
  };
}

export async function attributeModality(
  model: OpenModel,
  { of, noise }: EngineOperations['attributeModality']['input'],
  context: OperationContext,
): Promise<ModalityReport> {
  const started = performance.now();
  const asked = await askedOf(of);
  const { decoder } = model.edited.model;
  const attentions: ModalityAttentions[] = [];
  const noises: ModalityNoises[] = [];
  await measureEach(
    model,
    asked,
    context,
    'Comparing modalities',
    () => ModalityAttention.compile(decoder),
    async (attention, input) => void attentions.push(await attention.run(input)),
  );
  if (noise)
    await measureEach(
      model,
      asked,
      context,
      'Adding noise',
      () => ModalityNoise.compile(decoder),
      async (noisy, input) => void noises.push(await noisy.run(input, noise, context.signal)),
    );
  const weights = (kind: keyof ModalityAttentions) => meanOf(attentions.map((one) => one[kind]));
  return {
    count: attentions.length,
    attention: {
      text: weights('text'),
      visual: weights('visual'),
      topVisual: weights('topVisual'),
      visualShare: weights('visualShare'),
    },
    noise: noise && {
      ...(Object.fromEntries(
        modalities.map((modality) => [modality, meanOf(noises.map((one) => one[modality]))]),
      ) as Record<(typeof modalities)[number], number[]>),
      ...{ level: noise.level, draws: noise.draws },
    },
    seconds: seconds(started),
  };
}

/** Draws of the noise where only means over all rows and inputs are looked at. */
const PROPOSAL_DRAWS = 2;

export async function proposeEditLayer(
  model: OpenModel,
  { of, rows, seed }: EngineOperations['proposeLayer']['input'],
  context: OperationContext,
): Promise<LayerProposal> {
  const started = performance.now();
  const asked = await askedOf(of);
  const { decoder } = model.edited.model;
  const layers = Array.from({ length: decoder.layers }, (_, layer) => layer);
  const bars: ModuleContributions[] = [];
  const visual: number[][] = [];
  const text: Float32Array[] = [];
  await measureEach(
    model,
    asked,
    context,
    'Measuring modules',
    () => ModuleAttribution.compile(decoder, 'code'),
    async (modules, input) => void bars.push(...(await modules.run(input))),
  );
  await measureEach(
    model,
    asked,
    context,
    'Measuring attention',
    () => ModalityAttention.compile(decoder),
    async (attention, input) => void text.push((await attention.run(input)).questionShare),
  );
  await measureEach(
    model,
    asked,
    context,
    'Measuring what is read of the picture',
    () => PictureAttribution.compile(decoder, layers, { ...paperPerturbation, draws: PROPOSAL_DRAWS }),
    async (picture, input) => {
      const found = await picture.run(input, seed, async () => stopIfAsked(context));
      visual.push(found.map(({ mean }) => mean.reduce((sum, value) => sum + value, 0) / mean.length));
    },
  );
  const { attention, mlp } = plain(meanContributions(bars));
  const measures = { attention, mlp, visual: meanOf(visual), text: meanOf(text) };
  const proposal = proposeLayer(measures, rows);
  return {
    ...{ rows, layer: proposal.layer, count: bars.length, measures },
    readAbove: [...proposal.readAbove],
    highContributionLayers: [...proposal.highContributionLayers],
    why: explainProposal(proposal, bars.length),
    seconds: seconds(started),
  };
}
