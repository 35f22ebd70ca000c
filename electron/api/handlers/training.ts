/**
 * @file Calls about trainings.
 */
import type { HandlersOf } from '../router.ts';
import type { Trainings } from '../trainings.ts';
import { typedPath } from '../typedPath.ts';

export function trainingHandlers(trainings: Trainings): HandlersOf<'training'> {
  return {
    'training.list': () => trainings.list(),
    'training.curve': ({ training }) => trainings.curve(training),
    'training.start': ({ data, images, from, ...request }, context) =>
      trainings.start(
        {
          ...request,
          data: typedPath(data),
          ...(images !== undefined && { images: typedPath(images) }),
          ...(from !== undefined && { from: typedPath(from) }),
        },
        context,
      ),
    'training.resume': ({ training }, context) => trainings.resume(training, context),
    'training.keep': ({ training }, context) => trainings.keep(training, context),
    'training.remove': async ({ training }) => {
      await trainings.remove(training);
      return {};
    },
  };
}
