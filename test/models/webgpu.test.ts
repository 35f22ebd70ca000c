/** @file Every family on webgpu beside cpu, on a software renderer. */
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { fixture, largestDifference } from '../support/fixtures.ts';
import { rendererHindrance, reportOn } from '../support/softwareRenderer.ts';
import type { FamilyReport } from './familyOnProvider.ts';

/** Greatest distance over greatest value. */
const TOLERANCE = 2e-3;

const names = [
  'llava_tiny',
  'blip2_tiny',
  'minigpt4_tiny',
  'smolvlm_tiny',
  'qwen2_5_vl_tiny',
  'qwen3_vl_tiny',
];
const reason = await rendererHindrance();

describe.skipIf(reason !== null)(`webgpu answers as cpu${reason ? ` (skipped: ${reason})` : ''}`, () => {
  let cpu: readonly FamilyReport[];
  let webgpu: readonly FamilyReport[];
  beforeAll(async () => {
    const args = [fixture('images/pan.png'), ...names.map((name) => fixture(`checkpoints/${name}`))];
    const entry = join(import.meta.dirname, 'familyOnProvider.ts');
    cpu = await reportOn(entry, args, 'cpu');
    webgpu = await reportOn(entry, args, 'webgpu');
  }, 600_000);

  test.each(names)('%s', (name) => {
    const [ours, reference] = [webgpu, cpu].map((all) => all.find(({ family }) => family === name)!) as [
      FamilyReport,
      FamilyReport,
    ];
    const refused = ours.refusals.map(({ provider, reason }) => `${provider}: ${reason}`).join();
    expect(ours.provider, refused).toBe('webgpu');
    for (const part of ['visual', 'logits'] as const) {
      const size = reference[part].reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      expect(size, part).toBeGreaterThan(0);
      expect(largestDifference(ours[part], reference[part]) / size, part).toBeLessThan(TOLERANCE);
    }
    // Two implementations of floating point never agree to the last bit: the same bits would be the same provider.
    expect(ours.logits).not.toEqual(reference.logits);
    expect(reference.ids.length).toBeGreaterThan(0);
    expect(ours.ids).toEqual(reference.ids);
  });
});
