/** @file How well a map of a picture agrees with where the thing lies that it should show. */
import { EmendError } from '../errors.ts';

export interface MapAgreement {
  /** of all there is in the map, the share that lies on the thing, 0..1; 0 for a map of nothing */
  readonly share: number;
  /** the hottest cell lies on the thing (the pointing game of saliency maps) */
  readonly points: boolean;
  /** share of the cells that are the thing's: what a map of the same value everywhere would have as its share */
  readonly area: number;
}

/** values: at least 0 [cells]; thing: which cells show it [cells]. Throws `invalid-input` where no cell does, or lengths differ. */
export function agreement(values: ArrayLike<number>, thing: readonly boolean[]): MapAgreement {
  const cells = thing.filter(Boolean).length;
  if (cells === 0 || values.length !== thing.length) {
    throw new EmendError(
      'invalid-input',
      `A map of ${values.length} cells cannot be compared with a thing on ${cells} of ${thing.length}.`,
    );
  }
  let [all, on, hottest] = [0, 0, 0];
  for (let cell = 0; cell < values.length; cell++) {
    all += values[cell]!;
    if (thing[cell]) on += values[cell]!;
    if (values[cell]! > values[hottest]!) hottest = cell;
  }
  return { share: all > 0 ? on / all : 0, points: thing[hottest]!, area: cells / thing.length };
}
