/**
 * @file Calls that ask the model.
 */
import { readSettings } from '../../library/settings.ts';
import { converse } from '../conversing.ts';
import { unlessAborted } from '../jobs.ts';
import { type Parts, relay } from '../parts.ts';
import type { HandlersOf } from '../router.ts';

export function answerHandlers(parts: Parts): HandlersOf<'answers'> {
  const { library, engine, session, events } = parts;
  return {
    'answers.chat': ({ turns, sampling, ...request }, { job, signal }) => {
      const bytes = session.pictureReader();
      const seen = turns.map(({ role, text, pictures }) => ({ role, text, pictures: pictures.map(bytes) }));
      return converse(
        parts,
        { ...request, turns: seen, sampling: sampling ?? null },
        { signal, onStream: relay(events, job) },
      );
    },
    'answers.ask': async ({ picture, prompt, edits, sampling, maxNewTokens }, { job, signal }) => {
      const bytes = picture === null ? null : session.pictureReader()(picture);
      await unlessAborted<unknown>(
        edits === 'committed' ? session.demandActing() : session.demandModel(),
        signal,
      );
      const limit = maxNewTokens ?? readSettings(library).maxNewTokens;
      return engine.call(
        'ask',
        { picture: bytes, prompt, edits, maxNewTokens: limit, sampling: sampling ?? null },
        { signal, onStream: relay(events, job) },
      );
    },
  };
}
