import { describe, expect, it } from 'vitest';
import type { InfluenceMap } from '../../electron/api/contract.ts';
import { colourAt, gradient } from '../../renderer/workbench/colourScales.ts';
import {
  cell,
  cellAt,
  cellRectangle,
  containedIn,
  covering,
  interpolated,
  paintInfluence,
  veil,
} from '../../renderer/workbench/influence.ts';

/** 2 rows of 3, over the middle half of the picture's width. */
const map: InfluenceMap = {
  rows: 2,
  columns: 3,
  values: [0, 0.1, 0.2, 0.3, 0.4, 1],
  layer: 3,
  window: { left: 0.25, top: 0, width: 0.5, height: 1 },
};
const box = { left: 0, top: 0, width: 400, height: 400 };

describe('where a picture lies in its box', () => {
  it('is shown whole and centred', () => {
    expect(containedIn({ width: 800, height: 400 }, box)).toEqual({
      left: 0,
      top: 100,
      width: 400,
      height: 200,
    });
    expect(containedIn({ width: 100, height: 200 }, box)).toEqual({
      left: 100,
      top: 0,
      width: 200,
      height: 400,
    });
  });

  it('fills a thumbnail and is cropped at its edges', () => {
    expect(covering({ width: 800, height: 400 }, box)).toEqual({
      left: -200,
      top: 0,
      width: 800,
      height: 400,
    });
  });
});

describe('the cell under the pointer', () => {
  const picture = containedIn({ width: 800, height: 400 }, box); // 400 × 200, from y = 100; seen from x = 100 to 300

  it('is counted row by row, within what the model sees', () => {
    expect(cellAt(map, picture, 101, 101)).toEqual({ row: 0, column: 0, token: 0, influence: 0 });
    expect(cellAt(map, picture, 299, 299)).toEqual({ row: 1, column: 2, token: 5, influence: 1 });
    expect(cellAt(map, picture, 200, 250)?.token).toBe(4);
  });

  it('is none outside the window, the picture and the grid', () => {
    expect(cellAt(map, picture, 99, 150)).toBeNull();
    expect(cellAt(map, picture, 301, 150)).toBeNull();
    expect(cellAt(map, picture, 200, 99)).toBeNull();
    expect(cell(map, 2, 0)).toBeNull();
    expect(cell(map, 0, -1)).toBeNull();
    expect(cell({ ...map, values: [] }, 0, 0)).toBeNull();
  });

  it('has the rectangle it is found in', () => {
    const found = cellAt(map, picture, 250, 220)!;
    const { left, top, width, height } = cellRectangle(map, picture, found);
    expect(left).toBeLessThanOrEqual(250);
    expect(left + width).toBeGreaterThan(250);
    expect(top).toBeLessThanOrEqual(220);
    expect(top + height).toBeGreaterThan(220);
  });
});

describe('painting the map', () => {
  /** Records what is filled, as a canvas would be told. */
  function painted(smooth: boolean) {
    const fills: Array<{ style: string; area: number[] }> = [];
    const context = {
      fillStyle: '',
      fillRect(...area: number[]) {
        fills.push({ style: this.fillStyle, area });
      },
    };
    paintInfluence(context as unknown as CanvasRenderingContext2D, map, box, {
      opacity: 1,
      scale: 'turbo',
      smooth,
    });
    return fills;
  }

  it('paints each cell once, edge to edge over the window', () => {
    const fills = painted(false);
    expect(fills).toHaveLength(6);
    expect(fills.reduce((sum, { area }) => sum + area[2]! * area[3]!, 0)).toBe(200 * 400);
    expect(fills[0]!.area.slice(0, 2)).toEqual([100, 0]);
    expect(fills[0]!.style).toMatch(/\/ 0\)$/); // no influence lets the picture through
    expect(fills[5]!.style).toMatch(/\/ 1\)$/);
  });

  it('leaves the picture clear where influence is low, and covers more of it the higher that is', () => {
    expect(veil(0.2)).toBe(0);
    expect(veil(0.3)).toBeLessThan(0.15);
    expect(veil(0.8)).toBe(1);
    const rising = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75].map(veil);
    expect(rising).toEqual(rising.toSorted((one, other) => one - other));
  });

  it('interpolates values between cell centres when smooth', () => {
    expect(interpolated(map, 0, 0)).toBe(0);
    expect(interpolated(map, 0, 0.5)).toBeCloseTo(0.05);
    expect(interpolated(map, 0.5, 2)).toBeCloseTo(0.6);
    expect(interpolated(map, 5, 5)).toBe(1); // beyond the last centre it stays
    expect(painted(true).length).toBeGreaterThan(6);
  });
});

describe('colour scales', () => {
  it('run from end to end, each by its own colours', () => {
    expect(colourAt('viridis', 0)).toEqual([68, 1, 84]);
    expect(colourAt('viridis', 1)).toEqual([253, 231, 37]);
    // Turbo, from the published table, within the polynomial’s error, largest at its ends
    const expected = { 0: [48, 18, 59], 0.5: [164, 252, 60], 1: [122, 4, 3] } as const;
    for (const [at, colour] of Object.entries(expected)) {
      colourAt('turbo', Number(at)).forEach((channel, i) => {
        expect(Math.abs(channel - colour[i]!)).toBeLessThan(33);
      });
    }
  });

  it('take the nearest end outside 0 to 1, and the low end for no number', () => {
    expect(colourAt('turbo', 7)).toEqual(colourAt('turbo', 1));
    expect(colourAt('viridis', -1)).toEqual(colourAt('viridis', 0));
    expect(colourAt('viridis', Number.NaN)).toEqual(colourAt('viridis', 0));
  });

  it('make a legend that is as opaque as the map', () => {
    const legend = gradient('viridis', (value) => value);
    expect(legend).toContain('rgb(68 1 84 / 0.000) 0.0%');
    expect(legend).toContain('rgb(253 231 37 / 1.000) 100.0%');
  });
});
