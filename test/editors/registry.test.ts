import { globSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { editorKinds } from '../../electron/editors/registry.ts';
import { parseSettings, settingFields } from '../../electron/editors/settings.ts';
import { projectFolder } from '../../electron/frontends/places.ts';

const untrained = editorKinds.flatMap(({ name, untrained: kind }) => (kind ? [[name, kind] as const] : []));

test('names are one editor’s each', () => {
  const names = editorKinds.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
});

test.each(untrained)(
  '%s: every setting has a field that a form can show, and all have defaults',
  (name, { settings }) => {
    const fields = settingFields(settings);
    const defaults = parseSettings<object>(name, settings, {}) as Record<string, unknown>;
    for (const { key, default: value, help, optional } of fields) {
      expect(help, key).not.toBe('');
      expect(defaults, key).toHaveProperty(key);
      if (value === null) expect(optional || defaults[key] === null || defaults[key] === '', key).toBe(true);
    }
  },
);

test('Node runs every source as it is: it takes the types out and knows nothing else', () => {
  const sources = globSync('electron/**/*.ts', { cwd: projectFolder });
  expect(sources.length).toBeGreaterThan(200);
  for (const source of sources)
    expect(
      () => stripTypeScriptTypes(readFileSync(join(projectFolder, source), 'utf8')),
      source,
    ).not.toThrow();
});
