/**
 * @file The loop that trains any editor: batches of edits in, adapter weights out, its state saved so that it goes on to the bit.
 */
import { existsSync } from 'node:fs';
import { EmendError } from '../../errors.ts';
import { fingerprint } from '../../models/checkpoint.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { type Evaluation, meanEvaluation, TrainingState } from '../../training/trainer.ts';
import { visionFor } from './cachedVision.ts';
import type {
  EditorInTraining,
  TrainedWeights,
  TrainingOptions,
  TrainingRun,
  TrainingStart,
} from './editorTraining.ts';
import type { EditSource } from './edits.ts';

/** Milliseconds after which a state is saved however few steps were made. */
const LONGEST_UNSAVED = 120_000;

/**
 * Trains. The same options, source and model give the same weights to the bit, stopped and taken up again or not.
 * @throws EmendError 'cancelled' when the signal is aborted, with the state saved; 'conflict' where another training's state is kept
 */
export async function trainEditor(
  model: VisionLanguageModel,
  source: EditSource,
  options: TrainingOptions,
  run: TrainingRun,
  begin: (start: TrainingStart) => Promise<EditorInTraining>,
): Promise<TrainedWeights> {
  const { edits, seed, accumulate = 1 } = options;
  const modelFingerprint = await fingerprint(model.checkpoint);
  const first = await source.batch(0, edits);
  const { from, keptBelow, pictureCache = null } = run;
  const vision = await visionFor(source, model, modelFingerprint, pictureCache);
  const editor = await begin({ model, modelFingerprint, vision, first, seed, from, keptBelow });
  try {
    const state = new TrainingState(editor.parameters, options.optimizer, editor.kept);
    // Longer or shorter training of the same thing may go on; anything else is another training.
    const settings = JSON.stringify({
      ...{ edits, accumulate, seed },
      ...editor.settings,
      source: source.name,
      model: modelFingerprint,
      ...(from && { from: from.fingerprint }),
    });
    const save = async (step: number) => {
      await state.save(run.statePath, settings);
      await run.onSaved?.(step, () => editor.weights());
    };
    if (existsSync(run.statePath)) await state.load(run.statePath, settings);
    const started = performance.now();
    let saved = started;
    for (let step = state.optimizer.step; step < options.steps; step++) {
      const parts: Evaluation[] = [];
      const kept = [...(editor.kept?.values() ?? [])].map(({ data }) => ({ data, before: data.slice() }));
      for (let part = 0; part < accumulate; part++) {
        if (run.signal?.aborted) {
          // What a half-made step has changed is made again when the training goes on.
          for (const { data, before } of kept) data.set(before);
          await save(step);
          throw new EmendError(
            'cancelled',
            `Training was stopped after ${step} steps; it goes on from there.`,
          );
        }
        const number = step * accumulate + part;
        parts.push(await editor.evaluate(await source.batch(number, edits), number));
        await new Promise((resolve) => setImmediate(resolve));
      }
      const report = state.apply(meanEvaluation(parts));
      editor.stepped?.(report);
      run.onStep?.({ ...report, steps: options.steps, seconds: (performance.now() - started) / 1000 });
      const due = report.step % (run.saveEvery ?? 250) === 0 || report.step === options.steps;
      if (!due && performance.now() - saved < LONGEST_UNSAVED) continue;
      await save(report.step);
      saved = performance.now();
    }
    return { weights: editor.weights(), modelFingerprint };
  } finally {
    await editor.dispose();
  }
}
