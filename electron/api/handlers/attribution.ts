/**
 * @file Calls that look into the model: what contributes to an answer, and which layer to edit.
 */
import { basename } from 'node:path';
import type { z } from 'zod';
import { codePerturbation, paperPerturbation } from '../../attribution/visualContribution.ts';
import type { GateRequest } from '../../engine/gating.ts';
import type { AttributedInputs, EngineEdit } from '../../engine/protocol.ts';
import { editState } from '../../library/edits.ts';
import { selectedEdits } from '../../library/lists.ts';
import type { Attributions } from '../attributions.ts';
import type { AttributionFound, AttributionRun, Calls, GateReport } from '../contract.ts';
import { isSet, unlessAborted } from '../jobs.ts';
import { type Parts, relay } from '../parts.ts';
import { type CallContext, type HandlersOf, wireError } from '../router.ts';
import { shellQuoted, typedPath } from '../typedPath.ts';

type Of = z.output<Calls['attribution.modules']['input']>['of'];
type One = z.output<Calls['attribution.visual']['input']>['of'];

/** What the inputs of a set are of, for people. */
function setName(of: Of): string {
  if ('file' in of) return basename(of.file);
  return 'select' in of && 'edits' in of.select ? 'chosen edits' : 'the library’s edits';
}

export function attributionHandlers(
  { library, engine, longEngines, session, events, version }: Parts,
  attributions: Attributions,
): HandlersOf<'attribution'> {
  /** An input's picture and prompt, and the edit that is to act on it. */
  const inputOf = (of: One, bytes: (id: string) => Uint8Array) => {
    const state = of.edit === undefined ? null : editState(library, of.edit);
    return {
      picture: bytes(of.picture ?? state!.edit.picture),
      prompt: of.prompt ?? state!.edit.prompt,
      edit: state && session.engineEdit(state, bytes),
    };
  };
  const inputsOf = (of: Of, limit: number): { of: AttributedInputs; edit: EngineEdit | null } => {
    if ('file' in of) return { of: { ...of, limit, suffix: '' }, edit: null };
    const bytes = session.pictureReader();
    if (!('select' in of)) {
      const { edit, ...input } = inputOf(of, bytes);
      return { of: { inputs: [input] }, edit };
    }
    const ids = library.read(() => selectedEdits(library, of.select)).slice(0, limit);
    const inputs = ids.map((id) => {
      const { picture, prompt } = editState(library, id).edit;
      return { picture: bytes(picture), prompt };
    });
    return { of: { inputs }, edit: null };
  };
  /** Waits for the model, and for the adapter too where an edit is to act. */
  const ready = async (of: Of, { signal }: CallContext) => {
    const { name, fingerprint } = await unlessAborted(session.demandModel(), signal);
    if ('edit' in of && of.edit !== undefined) await session.demandAdapter();
    return { name, fingerprint };
  };
  /** Where an input is attributed: with others in a process of its own, so that what is asked meanwhile is answered. */
  const placeFor = async (of: Of) =>
    isSet(of) ? { at: longEngines, model: await session.demandOpening() } : { at: engine, model: undefined };
  /** Keeps what was found over a set. Where that cannot be, its job says so: it was found all the same. */
  const keep = async (
    found: AttributionFound,
    about: Omit<AttributionRun, 'id' | 'kind' | 'job' | 'created'>,
    { job, report }: CallContext,
  ) => {
    try {
      await attributions.keep({ ...about, job }, found);
      report.outcome(`Of ${about.count.toLocaleString('en')} inputs; kept on the Attribution page.`);
    } catch (error) {
      report.outcome(`It ended, but what was found cannot be kept: ${wireError(error).message}`);
    }
  };
  /** The same for anything but a gate; of one input nothing is kept. */
  const keepMean = async (
    found: Exclude<AttributionFound, { kind: 'gate' }>,
    model: AttributionRun['model'],
    of: Of,
    detail: string,
    context: CallContext,
  ) => {
    if (!isSet(of)) return;
    const { count, seconds } = found.report;
    await keep(found, { model, set: setName(of), count, seconds, detail }, context);
  };
  const options = ({ job, signal }: CallContext) => ({ signal, onStream: relay(events, job) });

  return {
    'attribution.modules': async ({ of, limit, token, control, variant }, context) => {
      const asked = inputsOf(of, limit);
      const opened = await ready(of, context);
      const { at, model } = await placeFor(of);
      const input = { ...asked, model, variant, token: token ?? null, control: control ?? null };
      const report = await at.call('attributeModules', input, options(context));
      const detail = token === undefined ? '' : `key token “${token}”`;
      await keepMean({ kind: 'modules', report }, opened, of, detail, context);
      return report;
    },
    'attribution.visual': async ({ of, layers, variant, level, draws, radius, seed }, context) => {
      const asked = inputOf(of, session.pictureReader());
      await ready(of, context);
      const usual = variant === 'paper' ? paperPerturbation : codePerturbation;
      const perturbation = {
        variant,
        level: level ?? usual.level,
        draws: draws ?? usual.draws,
        radius: radius ?? usual.radius,
      };
      return engine.call(
        'attributeVisual',
        { ...asked, layers: layers ?? null, perturbation, seed },
        options(context),
      );
    },
    'attribution.modality': async ({ of, limit, noise }, context) => {
      const asked = inputsOf(of, limit);
      const opened = await ready(of, context);
      const { at, model } = await placeFor(of);
      const report = await at.call('attributeModality', { of: asked.of, model, noise }, options(context));
      await keepMean({ kind: 'modality', report }, opened, of, noise ? '' : 'attention alone', context);
      return report;
    },
    'attribution.gate': async ({ limit, layers, ...set }, context) => {
      const started = performance.now();
      const { path, weights, pictureRows } = await unlessAborted(session.demandModel(), context.signal);
      const data = typedPath(set.data);
      const images = set.images === undefined ? undefined : typedPath(set.images);
      const request = {
        ...{
          model: path,
          weights,
          pictureRows: pictureRows.limit ?? undefined,
          providers: session.providers,
        },
        ...{ data, format: set.format, images, layers: layers ?? null, limit, suffix: '', textSuffix: '' },
      };
      const input = { request, emend: version, packed: session.packedCache, command: gateCommandOf(request) };
      const report = (await longEngines.call('measureGate', input, options(context))) as GateReport;
      const seconds = (performance.now() - started) / 1000;
      const detail = layers ? `layers ${layers.join(', ')}` : '';
      const about = { model: report.model, set: report.data.name, count: report.data.edits, seconds, detail };
      await keep({ kind: 'gate', report }, about, context);
      return { report, seconds };
    },
    'attribution.propose': async ({ of, limit, rows, seed }, context) => {
      const asked = inputsOf(of, limit);
      const opened = await ready(of, context);
      const { at, model } = await placeFor(of);
      const report = await at.call('proposeLayer', { of: asked.of, model, rows, seed }, options(context));
      const detail = rows === 'visual' ? 'the picture’s rows' : 'the question’s rows';
      await keepMean({ kind: 'propose', report }, opened, of, detail, context);
      return report;
    },
    'attribution.runs': () => attributions.list(),
    'attribution.read': ({ run }) => attributions.read(run),
    'attribution.remove': async ({ run }) => {
      await attributions.remove(run);
      return {};
    },
  };
}

/** The command that measures the same. */
function gateCommandOf({
  model,
  weights,
  pictureRows,
  data,
  format,
  images,
  layers,
  limit,
}: GateRequest): string {
  return [
    `npx emend attribute gate --model ${shellQuoted(model)} --data ${shellQuoted(data)}`,
    ...(format ? [`--format ${format}`] : []),
    ...(images ? [`--images ${shellQuoted(images)}`] : []),
    ...(layers ? [`--layers ${layers.join(',')}`] : []),
    `--limit ${limit}`,
    ...(pictureRows ? [`--picture-rows ${pictureRows}`] : []),
    ...(weights === 'dense' ? [] : [`--weights ${weights}`]),
  ].join(' ');
}
