/** @file A process of its own that asks the tiny checkpoint of every family about a picture on one provider, and sends what it says. */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { generate } from '../../electron/models/generation.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { floatsOf, type Provider } from '../../electron/tensor/session.ts';

export interface FamilyReport {
  readonly family: string;
  readonly provider: Provider;
  readonly refusals: ReadonlyArray<{ readonly provider: Provider; readonly reason: string }>;
  /** [visual rows, hidden] */
  readonly visual: Float32Array;
  /** of the last row [vocabulary] */
  readonly logits: Float32Array;
  readonly ids: readonly number[];
}

async function report(folder: string, picture: Uint8Array, provider: Provider): Promise<FamilyReport> {
  const model = await VisionLanguageModel.open(folder, {
    providers: [provider, 'cpu'],
    pictureRows: undefined,
  });
  try {
    const visual = await model.visualEmbeddings(await model.pixelsOf(picture));
    const encoded = model.prompts.encodePrompt({ prompt: 'What is it?', image: true });
    const prefill = await model.prefill(await model.lay(encoded, visual));
    const { ids } = await generate(model, prefill, { maxNewTokens: 4 });
    return {
      ...{ family: basename(folder), provider: model.provider, refusals: model.refusals },
      ...{ visual: visual.rows, logits: await floatsOf(prefill.logits!), ids },
    };
  } finally {
    await model.dispose();
  }
}

const [picture, ...rest] = process.argv.slice(2) as [string, ...string[]];
const provider = rest.pop() as Provider;
try {
  const file = await readFile(picture);
  const reports: FamilyReport[] = [];
  for (const folder of rest) reports.push(await report(folder, file, provider));
  process.send!({ report: reports });
} catch (error) {
  process.send!({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
}
process.disconnect();
