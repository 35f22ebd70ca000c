/**
 * @file Editors that act on the question, by a codebook or by another model, on backbones of every family: an edit comes back from its
 * bytes, changes its own answer's likelihood, and leaves alone what it should not touch.
 */
import { readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { EditedModel } from '../../electron/editors/editedModel.ts';
import { chosenEditor } from '../../electron/editors/registry.ts';
import { forceTarget, readForced } from '../../electron/evaluation/metrics.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { fixture } from '../support/fixtures.ts';

const editors = [
  { editor: 'IKE', settings: {} },
  { editor: 'LTE', settings: {} },
  { editor: 'GRACE', settings: { steps: 4, layer: 1 } },
  { editor: 'GRACE', settings: { steps: 4, layer: 0 } },
  { editor: 'SERAC', settings: { reading: 'mixed' } },
];
const families = readdirSync(fixture('checkpoints')).filter((name) => name.endsWith('_tiny'));
const prompt = 'What is the animal?';
const target = 'a cat';

test.each(families)('%s', async (family) => {
  const folder = fixture(`checkpoints/${family}`);
  const checkpoint = await openCheckpoint(folder);
  const unopened = await Promise.all(editors.map((choice) => chosenEditor(choice, checkpoint, 'm')));
  const cuts = [...new Set(unopened.flatMap((one) => one.cuts))].sort((a, b) => a - b);
  const model = await VisionLanguageModel.open(folder, { providers: ['cpu'], cuts });
  try {
    const visual = await model.visualEmbeddings(
      await model.pixelsOf(await readFile(fixture('images/a.png'))),
    );
    const forced = await forceTarget(model, visual, prompt, target);
    const before = await readForced(model, forced);
    const elsewhere = await forceTarget(model, null, 'Who wrote it?', 'nobody');
    const there = await readForced(model, elsewhere);
    for (const one of unopened) {
      const opened = await one.open(model, 'own');
      const edited = new EditedModel(model, opened, null);
      const state = edited.decode(edited.encode(await edited.make({ visual, prompt, target })));
      const after = await readForced(model, forced, edited.effect([state]));
      expect(Math.abs(after.nll - before.nll), one.name).toBeGreaterThan(1e-3);
      if (one.name === 'GRACE') expect(after.nll).toBeLessThan(before.nll);
      // Where an editor decides itself, another question without a picture is none of its edit's.
      if (one.name === 'GRACE' || one.name === 'LTE')
        expect((await readForced(model, elsewhere, edited.effect([state]))).nll).toBe(there.nll);
      const prepared = await edited.prepare(visual, prompt);
      const { ids } = await edited.answer(prepared, [state], { maxNewTokens: 2 });
      expect(ids.length).toBeLessThanOrEqual(2);
      await opened.dispose();
    }
  } finally {
    await model.dispose();
  }
});
