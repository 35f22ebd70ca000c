/** @file Editors chosen by name with settings: forms and values of a schema, what a fingerprint tells apart, and what is refused. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { editorChoice } from '../../electron/cli/options.ts';
import { chosenEditor, editorKinds, readAdapter } from '../../electron/editors/registry.ts';
import {
  parseSettings,
  settingFields,
  settingsFingerprint,
  settingsFromTexts,
} from '../../electron/editors/settings.ts';
import { projectFolder } from '../../electron/frontends/places.ts';
import { type Checkpoint, openCheckpoint } from '../../electron/models/open.ts';
import { fixture } from '../support/fixtures.ts';

const Settings = z.object({
  layer: z.int().min(0).max(40).nullable().default(null).describe('Which one'),
  keyRate: z.number().positive().default(0.5),
  form: z.enum(['code', 'paper']).default('code').meta({ title: 'As in' }),
  exact: z.boolean().default(false),
  texts: z.array(z.string()).default(['']),
  corpus: z.string().default('').meta({ file: true }),
});

let folder: string;
let checkpoint: Checkpoint;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'emend-settings-'));
  checkpoint = await openCheckpoint(fixture('checkpoints/llava_tiny'));
});
afterAll(() => rm(folder, { recursive: true }));

test('the fields of a schema, for forms', () => {
  const fields = Object.fromEntries(settingFields(Settings).map((field) => [field.key, field]));
  expect(fields['layer']).toMatchObject({
    kind: 'integer',
    optional: true,
    default: null,
    least: 0,
    most: 40,
  });
  expect(fields['layer']).toMatchObject({ label: 'Layer', help: 'Which one' });
  expect(fields['keyRate']).toMatchObject({
    kind: 'number',
    optional: false,
    default: 0.5,
    label: 'Key rate',
  });
  expect(fields['form']).toMatchObject({ kind: 'choice', options: ['code', 'paper'], label: 'As in' });
  expect(fields['exact']!.kind).toBe('boolean');
  expect(fields['texts']).toMatchObject({ kind: 'texts', default: [''] });
  expect(fields['corpus']!.kind).toBe('file');
});

test('values as they are typed, and what is no value', () => {
  const read = (...texts: string[]) => settingsFromTexts('X', settingFields(Settings), texts);
  expect(read('layer=3', 'keyRate=1e-3', 'exact=yes', 'form=paper', 'texts=a\nb', 'corpus=/a=b')).toEqual({
    ...{ layer: 3, keyRate: 0.001, exact: true, form: 'paper', texts: ['a', 'b'], corpus: '/a=b' },
  });
  expect(read('layer=')).toEqual({ layer: null });
  expect(() => read('layer')).toThrow(/name=value/);
  expect(() => read('depth=3')).toThrow(/no setting depth\. It has layer, keyRate/);
  expect(() => read('keyRate=fast')).toThrow(/is a number/);
  expect(() => read('exact=maybe')).toThrow(/yes or no/);
  expect(() => parseSettings('X', Settings, { keyRate: -1 })).toThrow(/setting keyRate of X/);
  expect(() => parseSettings('X', Settings, { depth: 1 })).toThrow(/no setting depth/);
});

test('an editor, its settings and the scope as the command line has them', () => {
  expect(editorChoice({ editor: 'IKE', setting: ['demonstrations=3'], scope: 'everywhere' })).toEqual({
    editor: { editor: 'IKE', settings: { demonstrations: 3 } },
    scope: { form: 'everywhere' },
  });
  expect(editorChoice({})).toEqual({});
  expect(editorChoice({ scope: 'everywhere' })).toEqual({ scope: { form: 'everywhere' } });
  expect(() => editorChoice({ setting: ['demonstrations=3'] })).toThrow(/go with --editor/);
  expect(() => editorChoice({ editor: 'Nobody' })).toThrow(/There are VisEdit/);
});

test('a fingerprint tells editor, settings, model and what files hold apart, and not where these lie', async () => {
  const [one, other] = [join(folder, 'one'), join(folder, 'other')];
  await writeFile(one, 'a');
  await writeFile(other, 'a');
  const of = (editor: string, given: object, model = 'm') =>
    settingsFingerprint(
      editor,
      Settings,
      parseSettings(editor, Settings, given as Record<string, unknown>),
      model,
    );
  const usual = await of('X', {});
  expect(await of('X', { keyRate: 0.5 })).toBe(usual);
  const unlike = [await of('Y', {}), await of('X', { layer: 1 }), await of('X', {}, 'n')];
  expect(new Set([usual, ...unlike]).size).toBe(4);
  const before = await of('X', { corpus: one });
  expect(await of('X', { corpus: other })).toBe(before);
  await writeFile(other, 'b');
  expect(await of('X', { corpus: other })).not.toBe(before);
});

test('every editor that needs no training has a form, and opens with what is published', async () => {
  const untrained = editorKinds.filter((kind) => kind.untrained);
  expect(untrained.length).toBeGreaterThan(3);
  for (const { name } of untrained) {
    const { cuts, fingerprint, settings } = await chosenEditor(
      { editor: name, settings: {} },
      checkpoint,
      'm',
    );
    expect(cuts.every((cut) => cut <= checkpoint.backbone.decoder.layers - 2)).toBe(true);
    expect(fingerprint).toHaveLength(64);
    expect(settings).not.toBeNull();
  }
});

describe('an adapter folder', () => {
  test('of an editor that needs no training holds its settings alone', async () => {
    await writeFile(
      join(folder, 'adapter.json'),
      JSON.stringify({ editor: 'IKE', settings: { demonstrations: 4 } }),
    );
    const read = await readAdapter(folder, checkpoint, 'm');
    expect(read).toMatchObject({ name: 'IKE', settings: { demonstrations: 4 }, folder: false });
    const chosen = await chosenEditor({ editor: 'IKE', settings: { demonstrations: 4 } }, checkpoint, 'm');
    expect(read.fingerprint).toBe(chosen.fingerprint);
  });

  test('is needed where an editor must be trained first', async () => {
    const trained = editorKinds.find(({ untrained }) => !untrained)!.name;
    await expect(chosenEditor({ editor: trained, settings: {} }, checkpoint, 'm')).rejects.toMatchObject({
      code: 'invalid-input',
      message: expect.stringMatching(/must be trained/),
    });
    await expect(chosenEditor({ editor: 'Nobody', settings: {} }, checkpoint, 'm')).rejects.toMatchObject({
      code: 'not-found',
    });
  });
});

test('engine, library, contract and page name no editor', async () => {
  const names = editorKinds.map(({ name }) => name.replace(/[^\w]/g, '\\$&')).join('|');
  const named = new RegExp(`['"\`](${names})['"\`]`);
  const found: string[] = [];
  for (const place of [
    'electron/engine',
    'electron/library',
    'electron/api',
    'electron/openai',
    'renderer',
  ]) {
    for (const file of await readdir(join(projectFolder, place), { recursive: true })) {
      if (!/\.(ts|svelte)$/.test(file)) continue;
      if (named.test(await readFile(join(projectFolder, place, file), 'utf8')))
        found.push(`${place}/${file}`);
    }
  }
  expect(found).toEqual([]);
});
