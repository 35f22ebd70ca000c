/**
 * @file Calls about comparisons of editors.
 */
import type { Benchmarks } from '../benchmarks.ts';
import type { HandlersOf } from '../router.ts';
import { typedPath } from '../typedPath.ts';

/** A data set's paths as they are meant. */
const typed = <T extends { data: string; images?: string | undefined }>(request: T): T => ({
  ...request,
  data: typedPath(request.data),
  ...(request.images !== undefined && { images: typedPath(request.images) }),
});

export function benchmarkHandlers(benchmarks: Benchmarks): HandlersOf<'benchmarks'> {
  return {
    'benchmarks.list': () => benchmarks.list(),
    'benchmarks.models': () => benchmarks.models(),
    'benchmarks.candidates': ({ model }) => benchmarks.candidates(model && typedPath(model)),
    'benchmarks.dataSet': (input) => benchmarks.dataSet(typed(input)),
    'benchmarks.read': ({ benchmark, part }) => benchmarks.read(benchmark, part),
    'benchmarks.start': ({ models, sets, ...request }, context) =>
      benchmarks.start(
        {
          ...request,
          ...(models && { models: models.map((path) => typedPath(path)) }),
          sets: sets.map(typed),
        },
        context,
      ),
    'benchmarks.resume': ({ benchmark }, context) => benchmarks.resume(benchmark, context),
    'benchmarks.open': ({ path }) => benchmarks.openReport(typedPath(path)),
    'benchmarks.remove': async ({ benchmark }) => {
      await benchmarks.remove(benchmark);
      return {};
    },
    'benchmarks.samples': (input) => benchmarks.samples(input),
    'benchmarks.thumbnails': (input) => benchmarks.thumbnails(input),
    'benchmarks.export': async (input, { report }) => {
      const written = await benchmarks.export({ ...input, file: typedPath(input.file) });
      report.outcome(`${written.lines} lines are written to ${written.file}.`);
      return written;
    },
  };
}
