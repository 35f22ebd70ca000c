/**
 * @file Trains the scorer on what the key network finds in a library of edits. How similar the keys are it is not told: on edits that
 * the key was trained on they say more than they will elsewhere.
 */
import * as f from '../../../tensor/functions.ts';
import { Graph } from '../../../tensor/graph.ts';
import { float32, floatsOf, int64, Session, type Value } from '../../../tensor/session.ts';
import { KeyBank, similarityOf } from '../keyBank.ts';
import type { Reach } from '../scope.ts';
import type { ScopeDataset } from './dataset.ts';
import { inScope } from './examples.ts';
import { askInputs, type Disturbance, dropout, feedAsks, pairInputs } from './feeding.ts';
import { CANDIDATES, type ScopeShape, scoresOf, scoreWeights, startWeights } from './network.ts';
import { type Draws, drawLibrary, type Kind, type Row, type Sampler } from './sampling.ts';
import { keysOfRows, lookups } from './trainKey.ts';
import { type NetworkTraining, type TrainContext, trainNetwork, type Weights } from './trainNetwork.ts';

export interface ScorerTraining extends NetworkTraining {
  /** edits a step, each with all its inputs */
  readonly edits: number;
  /** edits of the library that candidates come from, and in how many libraries the steps are divided */
  readonly library: number;
  readonly libraries: number;
}

/** An edit of a library. */
export interface LibraryEdit {
  readonly row: Row;
  readonly reach: Reach;
}
export interface Candidate {
  /** place in the library */
  readonly edit: number;
  readonly similarity: number;
  /** see `inScope` */
  readonly within: boolean | null;
}
/** An input with the edits that its key found. */
export interface Query {
  readonly row: Row;
  readonly kind: Kind;
  /** the edit of the library that it was drawn for; null for a stranger */
  readonly own: number | null;
  readonly candidates: readonly Candidate[];
}

/** Queries by the edit they were drawn for. */
export interface SearchedLibrary {
  readonly edits: readonly LibraryEdit[];
  readonly queries: readonly (readonly Query[])[];
}

/** What is hardest to tell from what is in scope weighs more. */
const hard: Partial<Record<Kind, number>> = { swapped: 3, samePicture: 1.5, sameShot: 1.5 };

/** Draws a library, and finds for each input about its edits the best by key. */
export async function searchLibrary(
  dataset: ScopeDataset,
  sampler: Sampler,
  size: number,
  shape: ScopeShape,
  key: Weights,
  draws: Draws,
  threads: number,
): Promise<SearchedLibrary> {
  const drawn = drawLibrary(sampler, size, draws);
  const edits = drawn.map(({ edit, reach }): LibraryEdit => ({ row: edit, reach }));
  const inputs = drawn.flatMap(({ edit, inputs: list }, own) => [
    { own, row: edit as Row, kind: 'edit' as Kind },
    ...list.map(({ kind, ...row }) => ({ own, row, kind })),
  ]);
  const keys = await keysOfRows(
    dataset,
    inputs.map(({ row }) => row),
    shape,
    key,
    threads,
  );
  const bank = new KeyBank(shape.keyWidth);
  for (const [at, { own, kind }] of inputs.entries())
    if (kind === 'edit') bank.add(own, keys[at]![edits[own]!.reach]);
  const queries: Query[][] = edits.map(() => []);
  for (const [at, { own, row, kind }] of inputs.entries()) {
    const candidates = bank.nearest(keys[at]!.input, CANDIDATES).map(
      ({ id, product }): Candidate => ({
        edit: id,
        similarity: similarityOf(product),
        within: inScope(edits[id]!.row.ask, row.ask, edits[id]!.reach),
      }),
    );
    queries[own]!.push({ row, kind, own, candidates });
  }
  return { edits, queries };
}

/** Feeds of queries with their candidates; asks are fed once each. */
function feedQueries(
  dataset: ScopeDataset,
  edits: readonly LibraryEdit[],
  queries: readonly Query[],
  shape: ScopeShape,
  disturbance: Disturbance | null,
): { feeds: Record<string, Value>; pairs: number } {
  const rows: Row[] = queries.map(({ row }) => row);
  const places = new Map<number, number>();
  const [inputs, against]: [number[], number[]] = [[], []];
  const reach: number[] = [];
  for (const [at, { candidates }] of queries.entries()) {
    for (const candidate of candidates) {
      let place = places.get(candidate.edit);
      if (place === undefined) {
        place = rows.length;
        rows.push(edits[candidate.edit]!.row);
        places.set(candidate.edit, place);
      }
      inputs.push(at);
      against.push(place);
      reach.push(...(edits[candidate.edit]!.reach === 'picture' ? [1, 0] : [0, 1]));
    }
  }
  const pairs = inputs.length;
  return {
    pairs,
    feeds: {
      ...feedAsks(rows, ...lookups(dataset), shape, { disturbance }),
      pair_input: int64(inputs, [pairs]),
      pair_edit: int64(against, [pairs]),
      pair_reach: float32(Float32Array.from(reach), [pairs, 2]),
    },
  };
}

export async function trainScorer(
  dataset: ScopeDataset,
  sampler: Sampler,
  shape: ScopeShape,
  key: Weights,
  settings: ScorerTraining,
  draws: Draws,
  context: TrainContext,
  from?: Weights,
): Promise<Weights> {
  const weights = from ?? startWeights(scoreWeights(shape), draws.normal);
  // The key has learnt where to look already.
  if (!from) {
    for (const [name, { data }] of weights) {
      const known = key.get(name.replace(/^score/, 'key'));
      if (known?.data.length === data.length) data.set(known.data);
    }
  }
  const graph = new Graph();
  const asks = askInputs(graph, shape);
  const pairs = pairInputs(graph);
  const kept = graph.input('kept', 'float32', ['pairs', shape.hidden]);
  const inputs = new Map(
    [...scoreWeights(shape)].map(([name, dims]) => [name, graph.input(name, 'float32', dims)]),
  );
  const scores = scoresOf(asks, pairs, shape, (name) => inputs.get(name)!, kept);
  const weighed = (name: string, x: typeof scores) =>
    f.sum(f.multiply(f.negate(f.logSigmoid(x)), graph.input(`weight.${name}`, 'float32', ['pairs'])));
  const terms = { within: weighed('within', scores), out: weighed('out', f.negate(scores)) };
  const loss = f.add(terms.within, terms.out);
  const each = Math.ceil(settings.steps / settings.libraries);
  let library: SearchedLibrary;
  return trainNetwork(
    graph,
    { loss, terms, weights },
    settings,
    draws,
    context,
    async (disturbance, step) => {
      const { library: size, threads } = settings;
      if (step % each === 0)
        library = await searchLibrary(dataset, sampler, size, shape, key, draws, threads);
      const { edits, queries: all } = library;
      const queries = Array.from({ length: settings.edits }, () => draws.pick(all))
        .flat()
        .map((query) => withOwn(query, edits));
      const { feeds, pairs: count } = feedQueries(dataset, edits, queries, shape, disturbance);
      const within = new Float32Array(count);
      const out = new Float32Array(count);
      let at = 0;
      for (const { kind, candidates } of queries) {
        for (const { within: inside } of candidates) {
          // Of an input's candidates all that it is not in scope of count as much as the one that it is.
          if (inside) within[at] = 1 / queries.length;
          else if (inside === false) out[at] = (hard[kind] ?? 1) / (2 * queries.length);
          at++;
        }
      }
      return {
        ...feeds,
        'weight.within': float32(within, [count]),
        'weight.out': float32(out, [count]),
        kept: dropout(count, shape.hidden, settings.dropout, draws.uniform),
      };
    },
  );
}

/** The query with the edit it was drawn for among its candidates, so that what the key misses is learnt from too. */
function withOwn(query: Query, edits: readonly LibraryEdit[]): Query {
  const { own, row, candidates } = query;
  if (own === null || candidates.some(({ edit }) => edit === own)) return query;
  const { row: edit, reach } = edits[own]!;
  const similarity = candidates.at(-1)?.similarity ?? 0;
  const mine: Candidate = { edit: own, similarity, within: inScope(edit.ask, row.ask, reach) };
  return { ...query, candidates: [...candidates.slice(0, CANDIDATES - 1), mine] };
}

/** Scores of each query's candidates. */
export async function scoreQueries(
  dataset: ScopeDataset,
  { edits, queries }: { readonly edits: readonly LibraryEdit[]; readonly queries: readonly Query[] },
  shape: ScopeShape,
  scorer: Weights,
  threads: number,
): Promise<Float32Array[]> {
  const graph = new Graph();
  const asks = askInputs(graph, shape);
  const pairs = pairInputs(graph);
  const constant = (name: string) => graph.constant(scorer.get(name)!.data, scorer.get(name)!.shape);
  graph.output('scores', scoresOf(asks, pairs, shape, constant, null));
  const session = await Session.create(graph, { providers: ['cpu'], threads });
  try {
    const found: Float32Array[] = [];
    for (let start = 0; start < queries.length; start += 32) {
      const some = queries.slice(start, start + 32);
      const { feeds } = feedQueries(dataset, edits, some, shape, null);
      const scores = await floatsOf((await session.run(feeds))['scores']!);
      let at = 0;
      for (const { candidates } of some) {
        found.push(scores.slice(at, at + candidates.length));
        at += candidates.length;
      }
    }
    return found;
  } finally {
    await session.dispose();
  }
}
