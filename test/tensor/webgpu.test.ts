/** @file The webgpu provider against cpu, on a software renderer: slow, and the very code that runs on a graphics card. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Provider } from '../../electron/tensor/session.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { largestDifference } from '../support/fixtures.ts';
import { rendererHindrance, reportOn } from '../support/softwareRenderer.ts';
import type { Answered, ProviderReport } from './onProvider.ts';

/** Greatest distance over greatest value. */
const TOLERANCE = 1e-3;

const folder = mkdtempSync(join(tmpdir(), 'emend-webgpu-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const on = (provider: Provider) =>
  reportOn<ProviderReport>(join(import.meta.dirname, 'onProvider.ts'), [folder, folder], provider);

const reason = await rendererHindrance();

describe.skipIf(reason !== null)(`webgpu agrees with cpu${reason ? ` (skipped: ${reason})` : ''}`, () => {
  let cpu: ProviderReport;
  let webgpu: ProviderReport;
  beforeAll(async () => {
    // Grouped queries and a head of its own: every operator of a decoder is in it.
    await writeTinyCheckpoint(folder, { keyValueHeads: 2 });
    cpu = await on('cpu');
    webgpu = await on('webgpu');
  }, 600_000);

  const near = (name: 'visual' | 'signal' | 'logits' | 'editedLogits' | 'influence') => {
    const size = cpu[name].reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    expect(size, name).toBeGreaterThan(0);
    expect(largestDifference(webgpu[name], cpu[name]) / size, name).toBeLessThan(TOLERANCE);
  };

  test('it is webgpu that runs', () => {
    expect(webgpu.provider).toBe('webgpu');
    // Two implementations of floating point never agree to the last bit: the same bits would be the same provider.
    expect(webgpu.logits).not.toEqual(cpu.logits);
  });

  test('forward pass, from the picture to the logits of every row', () => {
    near('visual');
    near('logits');
  });

  test.each(['before', 'after'] as const)('generation with the KV cache, %s the edit', (side) => {
    const [ours, reference]: [Answered, Answered] = [webgpu[side], cpu[side]];
    expect(reference.ids.length).toBeGreaterThan(1);
    expect(ours.ids).toEqual(reference.ids);
    for (const [token, probabilities] of ours.probabilities.entries())
      expect(largestDifference(probabilities, reference.probabilities[token]!)).toBeLessThan(TOLERANCE);
  });

  test('an edit: its signal, its influence map, and what it does to the logits', () => {
    near('signal');
    near('influence');
    near('editedLogits');
    expect(cpu.after.ids).not.toEqual(cpu.before.ids);
  });

  test('a training step: every loss term, and how far every weight moves', () => {
    expect(Object.keys(cpu.terms)).toHaveLength(8);
    for (const [name, value] of Object.entries(cpu.terms))
      expect(Math.abs(webgpu.terms[name]! - value) / value, name).toBeLessThan(TOLERANCE);
    expect(Math.abs(webgpu.gradientNorm / cpu.gradientNorm - 1)).toBeLessThan(TOLERANCE);
    expect(webgpu.moved.size).toBe(cpu.moved.size);
    for (const [name, moved] of cpu.moved) {
      const most = moved.reduce((size, value) => Math.max(size, Math.abs(value)), 0);
      // The bias of all keys alike does nothing behind a softmax: its gradient is zero but for rounding.
      if (name !== 'cross_att_k_mlp.bias') expect(most, name).toBeGreaterThan(1e-5);
      expect(largestDifference(webgpu.moved.get(name)!, moved), name).toBeLessThan(1e-6 + TOLERANCE * most);
    }
  });
});
