/**
 * @file Calls about settings.
 */
import { readSettings, writeSettings } from '../../library/settings.ts';
import type { Parts } from '../parts.ts';
import type { HandlersOf } from '../router.ts';

export function settingsHandlers({ library, session, events }: Parts): HandlersOf<'settings'> {
  return {
    'settings.get': () => readSettings(library),
    'settings.set': (changes) => {
      const old = readSettings(library);
      const settings = writeSettings(library, changes);
      // These are part of how a model is opened.
      const of = ({ providers, promptTemplate, pictureRows }: typeof old) =>
        [...providers, promptTemplate, pictureRows].join();
      if (of(settings) !== of(old)) session.reopen();
      // Checks depend on the policy, the prompts and the length of answers.
      events.emit({ name: 'library.changed', payload: { edits: [] } });
      return settings;
    },
  };
}
