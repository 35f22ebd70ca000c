/**
 * @file What the engine can do, one function per operation of the protocol.
 */
import type { Answer, InfluenceMap, Routing } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import type { Prepared } from '../evaluation/editedModel.ts';
import { probePasses } from '../evaluation/exactMatch.ts';
import type { Generation } from '../models/generation.ts';
import { openCheckpoint } from '../models/open.ts';
import { type PictureLayout, type Visual, whole } from '../models/picture.ts';
import { encodeActing } from './actingEdit.ts';
import { OpenModel, summarise } from './openModel.ts';
import type { EngineProbeResult, OperationContext, OperationTable } from './protocol.ts';

let opened: OpenModel | null = null;

/** Frees the open model: sessions must be gone before the process ends. */
export async function release(): Promise<void> {
  await opened?.dispose();
  opened = null;
}

function open(): OpenModel {
  if (!opened) throw new EmendError('conflict', 'No model is open. Open one first.');
  return opened;
}

function stopIfAsked(context: OperationContext): void {
  if (context.signal.aborted) throw new EmendError('cancelled', 'Stopped.');
}

/** Lets messages in between two blocking runs. */
const breathe = () => new Promise((resolve) => setImmediate(resolve));

class Stopwatch {
  readonly #start = performance.now();
  #last = this.#start;
  /** milliseconds since the last lap */
  lap(): number {
    const now = performance.now();
    const lap = now - this.#last;
    this.#last = now;
    return lap;
  }
  total(): number {
    return performance.now() - this.#start;
  }
}

function answerOf(
  model: OpenModel,
  generation: Generation,
  times: Answer['times'],
  routing: Routing | null,
): Answer {
  const plain = ({ id, text, probability }: { id: number; text: string; probability: number }) => ({
    id,
    text,
    probability,
  });
  return {
    text: generation.text,
    tokens: generation.tokens.map((token) => ({
      ...plain(token),
      alternatives: token.alternatives.map(plain),
    })),
    ended: generation.ended,
    provider: model.edited.model.provider,
    times,
    routing,
  };
}

async function influenceMap(
  model: OpenModel,
  prepared: Prepared,
  signal: Parameters<OpenModel['edited']['influence']>[1],
  layout: PictureLayout,
): Promise<InfluenceMap> {
  const values = await model.edited.influence(prepared, signal);
  // Rows without a place in the picture are shown as a line over all of it.
  const { grid, window, cells } = layout.map ?? {
    grid: { height: 1, width: layout.rows },
    window: whole,
    cells: Array.from({ length: layout.rows }, (_, row) => row),
  };
  return {
    rows: grid.height,
    columns: grid.width,
    values: cells.map((row) => values?.[row] ?? 1),
    ...(!layout.map && { placed: false }),
    layer: model.summary.adapter?.layer ?? 0,
    window,
  };
}

export const operations: OperationTable = {
  async open(input, context) {
    const next = await OpenModel.open(input, context);
    await opened?.dispose();
    opened = next;
    const { provider, refusals } = next.edited.model;
    return { summary: next.summary, provider, refusals };
  },

  async inspect({ path }) {
    const checkpoint = await openCheckpoint(path);
    const tensors = [...checkpoint.files].flatMap(([file, { tensors }]) =>
      [...tensors.values()].map(({ name, dtype, shape }) => ({ name, dtype, shape: [...shape], file })),
    );
    return { summary: await summarise(path, checkpoint, null), tensors };
  },

  async activate(part, context) {
    return { signals: await open().activate(part, context) };
  },

  async ask({ picture, prompt, edits, maxNewTokens, sampling }, context) {
    const model = open();
    const watch = new Stopwatch();
    const seen = picture ? await model.see(picture) : null;
    const times = { picture: watch.lap(), prompt: 0, generation: 0, total: 0 };
    const prepared = await model.edited.prepare(seen?.visual ?? null, prompt);
    const found = edits === 'committed' && model.edited.editor ? await model.decide(prepared) : null;
    times.prompt = watch.lap();
    const generation = await model.edited.answer(prepared, found && model.signalOf(found), {
      maxNewTokens,
      sampling,
      signal: context.signal,
      onToken: (token) =>
        context.send({
          kind: 'token',
          side: 'answer',
          token: { ...token, alternatives: [...token.alternatives] },
        }),
    });
    times.generation = watch.lap();
    times.total = watch.total();
    return answerOf(model, generation, times, found && model.routing(found, [...model.active].length));
  },

  async preview({ edit, maxNewTokens }, context) {
    const model = open();
    const watch = new Stopwatch();
    const { visual, layout } = await model.see(edit.picture);
    const picture = watch.lap();
    const candidate = await model.acting(edit, visual);
    const prepared = await model.edited.prepare(visual, edit.prompt);
    const prompt = watch.lap();
    const found = await model.edited.decide(prepared, model.bankOf([candidate]));
    const side = async (
      name: 'before' | 'after',
      signal: typeof candidate.signal | null,
      routing: Routing | null,
    ) => {
      stopIfAsked(context);
      const generation = await model.edited.answer(prepared, signal, {
        maxNewTokens,
        signal: context.signal,
        onToken: (token) =>
          context.send({
            kind: 'token',
            side: name,
            token: { ...token, alternatives: [...token.alternatives] },
          }),
      });
      const lap = watch.lap();
      return answerOf(
        model,
        generation,
        { picture, prompt, generation: lap, total: picture + prompt + lap },
        routing,
      );
    };
    const before = await side('before', null, null);
    const after = await side('after', model.signalOf(found, candidate), model.routing(found, 1));
    const influence = await influenceMap(model, prepared, candidate.signal, layout);
    return { before, after, influence, signal: encodeActing(candidate) };
  },

  async check({ edit, probes, maxNewTokens }, context) {
    const model = open();
    const { visual, layout } = await model.see(edit.picture);
    const candidate = await model.acting(edit, visual);
    const committed = [...model.active].filter(({ id }) => id !== edit.id);
    const bankWithout = model.bankOf(committed);
    const bankWith = model.bankOf([...committed, candidate]);
    const results: EngineProbeResult[] = [];
    // Probes on the same picture follow one another, so its rows are computed once.
    let lastPicture: { file: Uint8Array; visual: Visual } = { file: edit.picture, visual };
    const same = (a: Uint8Array, b: Uint8Array) => a === b || Buffer.compare(a, b) === 0;
    for (const probe of probes) {
      stopIfAsked(context);
      if (probe.picture && !same(probe.picture, lastPicture.file)) {
        lastPicture = { file: probe.picture, visual: (await model.see(probe.picture)).visual };
      }
      const prepared = await model.edited.prepare(probe.picture ? lastPicture.visual : null, probe.prompt);
      const options = { maxNewTokens, signal: context.signal };
      const without = await model.edited.decide(prepared, bankWithout);
      const withIt = await model.edited.decide(prepared, bankWith);
      const before = await model.edited.answer(prepared, model.signalOf(without, candidate), options);
      const unchanged = without.acting?.edit === withIt.acting?.edit;
      const after = unchanged
        ? before
        : await model.edited.answer(prepared, model.signalOf(withIt, candidate), options);
      const result: EngineProbeResult = {
        key: probe.key,
        before: before.text,
        after: after.text,
        passes: probePasses(probe.expected, before.text, after.text),
        routing: prepared.prefill.input.imageRows ? model.routing(withIt, bankWith.size) : null,
      };
      results.push(result);
      context.send({ kind: 'result', result });
      context.send({
        kind: 'progress',
        stage: 'Checking',
        done: results.length,
        total: probes.length,
        unit: 'probes',
      });
      await breathe();
    }
    const own = await model.edited.prepare(visual, edit.prompt);
    return {
      results,
      influence: await influenceMap(model, own, candidate.signal, layout),
      signal: encodeActing(candidate),
    };
  },
};
