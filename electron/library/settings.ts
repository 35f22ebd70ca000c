/**
 * @file Settings kept with the library, and the default policy of checks.
 */
import { z } from 'zod';
import type { Settings } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { prepared, type Store } from './database.ts';

export type CheckPolicy = Settings['policy'];

/** Share of each kind of probe that must pass unless the settings say otherwise. */
export const defaultPolicy: CheckPolicy = {
  required: {
    reliability: 1,
    'text-generality': 0.75,
    'image-generality': 0.75,
    'text-locality': 1,
    'image-locality': 0.95,
    'same-picture': 0.9,
    'same-question': 0.9,
    committed: 1,
  },
};

const share = z.number().min(0).max(1);

/** What each key holds; an unreadable value of a file from elsewhere becomes the default. */
const stored = {
  providers: z.array(z.enum(['cuda', 'dml', 'coreml', 'webgpu', 'cpu'])).catch([]),
  theme: z.enum(['system', 'light', 'dark']).catch('system'),
  maxNewTokens: z.number().int().min(1).max(1024).catch(64),
  promptTemplate: z.enum(['plain', 'chat']).catch('plain'),
  reach: z.enum(['picture', 'thing']).catch('picture'),
  packedFolder: z.string().catch(''),
  packedLimitGb: z.number().min(1).catch(50),
  pictureRows: z.number().int().min(1).max(1_000_000).nullable().catch(null),
  policy: z
    .object({
      required: z.object(
        Object.fromEntries(Object.keys(defaultPolicy.required).map((kind) => [kind, share])) as Record<
          keyof CheckPolicy['required'],
          typeof share
        >,
      ),
    })
    .catch(defaultPolicy),
} satisfies { [K in keyof Settings]: z.ZodType<Settings[K]> };

/** The settings, defaults where none were chosen. */
export function readSettings(store: Store): Settings {
  const rows = prepared<[], { key: string; value: string }>(store, 'SELECT key, value FROM settings').all();
  const chosen = new Map(rows.map((row) => [row.key, row.value]));
  const value = (key: keyof Settings): unknown => {
    try {
      return JSON.parse(chosen.get(key) ?? 'null');
    } catch {
      return null;
    }
  };
  return {
    providers: stored.providers.parse(value('providers')),
    theme: stored.theme.parse(value('theme')),
    maxNewTokens: stored.maxNewTokens.parse(value('maxNewTokens')),
    promptTemplate: stored.promptTemplate.parse(value('promptTemplate')),
    policy: stored.policy.parse(value('policy')),
    reach: stored.reach.parse(value('reach')),
    packedFolder: stored.packedFolder.parse(value('packedFolder')),
    packedLimitGb: stored.packedLimitGb.parse(value('packedLimitGb')),
    pictureRows: stored.pictureRows.parse(value('pictureRows')),
  };
}

/** Keeps the given settings and leaves the others. @throws EmendError 'invalid-input' for a key there is none of */
export function writeSettings(store: Store, changes: Partial<Settings>): Settings {
  return store.write(() => {
    for (const [key, value] of Object.entries(changes)) {
      if (!Object.hasOwn(stored, key)) throw new EmendError('invalid-input', `There is no setting "${key}".`);
      if (value === undefined) continue;
      prepared(
        store,
        'INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value',
      ).run(key, JSON.stringify(value));
    }
    return readSettings(store);
  });
}
