/**
 * @file A process of its own that does what Emend does with a model on one provider, and sends the numbers to its parent.
 * A graphics driver is chosen by the environment a process starts with, so the test that compares providers cannot be it.
 */
import { join } from 'node:path';
import { trainVisEdit } from '../../electron/editors/visedit/trainVisEdit.ts';
import { VisEdit } from '../../electron/editors/visedit/visEdit.ts';
import { generate } from '../../electron/models/generation.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { floatsOf, type Provider } from '../../electron/tensor/session.ts';
import { adamDefaults } from '../../electron/training/optimizer.ts';
import { EDIT_LAYER, noisePicture, tinyEdits, tinyTraining } from '../support/tinyEdits.ts';

export interface Answered {
  readonly ids: readonly number[];
  /** of each token, the probabilities of its five alternatives */
  readonly probabilities: ReadonlyArray<readonly number[]>;
}

export interface ProviderReport {
  readonly provider: Provider;
  /** [visual tokens, hidden] */
  readonly visual: Float32Array;
  /** edit signal [rows, hidden] */
  readonly signal: Float32Array;
  /** [rows, vocabulary] */
  readonly logits: Float32Array;
  readonly editedLogits: Float32Array;
  readonly influence: Float32Array;
  readonly before: Answered;
  readonly after: Answered;
  /** loss terms by name, and the gradients' norm */
  readonly terms: Readonly<Record<string, number>>;
  readonly gradientNorm: number;
  /** how far a step moved each weight of the adapter */
  readonly moved: ReadonlyMap<string, Float32Array>;
}

async function report(folder: string, state: string, provider: Provider): Promise<ProviderReport> {
  const model = await VisionLanguageModel.open(folder, { providers: [provider], cuts: [EDIT_LAYER] });
  const side = 28;
  // With ε = 1 a step is a smooth function of the gradient: where the gradient agrees, so does the step.
  const train = (steps: number) => {
    let last = { terms: {} as Readonly<Record<string, number>>, gradientNorm: 0 };
    const optimizer = { ...adamDefaults(1), epsilon: 1 };
    return trainVisEdit(
      model,
      tinyEdits(model),
      { ...tinyTraining, scale: 0, steps, optimizer },
      { statePath: join(state, `${provider}-${steps}.safetensors`), onStep: (step) => (last = step) },
    ).then((trained) => ({ ...trained, ...last }));
  };
  const untrained = await train(0);
  const trained = await train(1);
  const moved = new Map(
    [...trained.weights].map(([name, { data }]) => [
      name,
      data.map((value, index) => value - untrained.weights.get(name)!.data[index]!),
    ]),
  );

  // Strong enough that the edit changes the answer.
  const strong = new Map(
    [...trained.weights].map(([name, { shape, data }]) => [
      name,
      { shape, data: name.startsWith('mlp_end.') ? data.map((value) => value * 40) : data },
    ]),
  );
  const editor = await VisEdit.create(EDIT_LAYER, trained.shape, strong, [provider]);
  const visual = await model.visualEmbeddings(noisePicture(model, side, 90));
  const prompt = 'What is the animal on the left?';
  const signal = await editor.make(model, { visual, prompt, target: 'a small cat' });
  const encoded = model.prompts.encodePrompt({ prompt, image: true });
  const prefill = await model.prefill(await model.lay(encoded, visual));
  const { rows } = prefill.input;
  const every = Array.from({ length: rows }, (_, row) => row);
  const adapt = editor.adapt(signal);
  const logits = await floatsOf((await model.finish(prefill, every)).logits);
  const editedLogits = await floatsOf((await model.finish(prefill, every, adapt)).logits);
  const influence = (await editor.maps(model, prefill, signal))[0]!.values;
  const answered = async (edit?: typeof adapt): Promise<Answered> => {
    const { ids, tokens } = await generate(model, prefill, { maxNewTokens: 6, adapt: edit });
    return {
      ids,
      probabilities: tokens.map(({ alternatives }) => alternatives.map(({ probability }) => probability)),
    };
  };
  const result = {
    provider: model.provider,
    visual: visual.rows,
    signal: signal.hidden,
    logits,
    editedLogits,
    influence,
    before: await answered(),
    after: await answered(adapt),
    terms: trained.terms,
    gradientNorm: trained.gradientNorm,
    moved,
  };
  await editor.dispose();
  await model.dispose();
  return result;
}

const [folder, state, provider] = process.argv.slice(2) as [string, string, Provider];
try {
  process.send!({ report: await report(folder, state, provider) });
} catch (error) {
  process.send!({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
}
process.disconnect();
