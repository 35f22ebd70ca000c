import { expect, test } from 'vitest';
import {
  explainProposal,
  type LayerMeasures,
  proposeLayer,
} from '../../electron/attribution/layerProposal.ts';

/** A model of six layers that reads the picture at layers 3 to 5 and the question at 1 and 2. */
const measures: LayerMeasures = {
  attention: [-0.2, 0.1, 0.1, 0.3, 0.4, 0.2],
  mlp: [0.02, 0.02, 0.05, 0.2, 0.4, 0.5],
  visual: [0.5, 0, 0, 0.1, 0.1, 0.1],
  text: [0.9, 0.5, 0.5, 0, 0, 0],
};

test('the proposed layer is the last one above which the rows are still read', () => {
  const visual = proposeLayer(measures, 'visual');
  // Layer 0's attention works against the key tokens, so what it reads counts for nothing.
  expect(visual.layer).toBe(2);
  expect(visual.readAbove.map((share) => Number(share.toFixed(3)))).toEqual([1, 1, 1, 0.667, 0.222, 0]);
  expect(visual.highContributionLayers).toEqual([3, 4, 5]);
  expect(proposeLayer(measures, 'text')).toMatchObject({ rows: 'text', layer: 0 });
});

test('a tenth of the reading may lie below, and no more', () => {
  const even = (first: number) => ({
    ...measures,
    attention: [first, 1, 1],
    mlp: [0, 0, 0],
    visual: [1, 1, 1],
  });
  expect(proposeLayer(even(0.22), 'visual').layer).toBe(0);
  const late = { ...even(0.22), attention: [0.1, 0.1, 1.9] };
  expect(proposeLayer(late, 'visual').layer).toBe(1);
  const early = { ...even(0.22), attention: [1, 0.5, 0.5] };
  // Layer 0's own reading cannot lie above any layer: the lowest there is.
  expect(proposeLayer(early, 'visual')).toMatchObject({ layer: 0, readAbove: [0.5, 0.25, 0] });
});

test('the reason has the shares, what it was measured on, and says where no layer has enough above it', () => {
  expect(explainProposal(proposeLayer(measures, 'visual'), 12)).toMatch(
    /^Of what the layers read of the picture .* 100 % is read above layer 2, and 67 % above layer 3\. A change .* Measured on 12 inputs;/,
  );
  const early = { ...measures, text: [0, 1, 0, 0.1, 0, 0] };
  expect(explainProposal(proposeLayer(early, 'text'), 1)).not.toContain('the lowest is taken');
  const first = { ...early, attention: [1, 1, 0, 0, 0, 0], text: [1, 1, 0, 0, 0, 0] };
  expect(explainProposal(proposeLayer(first, 'text'), 1)).toMatch(
    /the question .* 50 % is read above layer 0.* No layer has 90 % above it, so the lowest is taken\. Measured on 1 input;/,
  );
});

test('where nothing is read, nothing is proposed', () => {
  expect(() => proposeLayer({ ...measures, visual: [0, 0, 0, 0, 0, 0] }, 'visual')).toThrow(/the picture/);
  expect(() => proposeLayer({ ...measures, attention: [-1, -1, 0, 0, 0, 0] }, 'text')).toThrow(
    /from the question.*other prompts/,
  );
});
