/**
 * @file Calls that ask the model.
 */
import { readSettings } from '../../library/settings.ts';
import { unlessAborted } from '../jobs.ts';
import { type Parts, relay } from '../parts.ts';
import type { HandlersOf } from '../router.ts';

export function answerHandlers({ library, engine, session, events }: Parts): HandlersOf<'answers'> {
  return {
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
