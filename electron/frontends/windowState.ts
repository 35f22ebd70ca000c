/** @file Size and place of the window, kept from one start to the next. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';

const Bounds = z.object({
  x: z.number().int(),
  y: z.number().int(),
  width: z.number().int(),
  height: z.number().int(),
});
export type Bounds = z.infer<typeof Bounds>;

export const WindowState = z.object({ bounds: Bounds.nullable(), maximized: z.boolean() });
export type WindowState = z.infer<typeof WindowState>;

/** Smallest window the page is drawn for, in CSS pixels. */
export const MINIMUM = { width: 480, height: 400 };

/**
 * The state saved in `file`, with the place dropped where no display shows enough of it any more.
 * @param displays the areas windows may take, in the coordinates of the bounds
 */
export function loadWindowState(file: string, displays: readonly Bounds[]): WindowState {
  const fresh: WindowState = { bounds: null, maximized: false };
  let state: WindowState;
  try {
    state = WindowState.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    // Missing or damaged, it is not worth a word: the window opens as it did the first time.
    return fresh;
  }
  const { bounds } = state;
  if (!bounds || bounds.width < MINIMUM.width || bounds.height < MINIMUM.height)
    return { ...state, bounds: null };
  const visible = displays.some((display) => overlap(bounds, display) >= 0.25 * bounds.width * bounds.height);
  return visible ? state : { ...state, bounds: null };
}

/** Keeps `state` for the next start; a folder that cannot be written only costs the memory of it. */
export function saveWindowState(file: string, state: WindowState): void {
  try {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, JSON.stringify(state));
  } catch {
    // see above
  }
}

/** Area two rectangles share. */
function overlap(a: Bounds, b: Bounds): number {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  return Math.max(0, width) * Math.max(0, height);
}
