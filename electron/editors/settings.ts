/**
 * @file Settings of editors: the fields of a schema as forms and command lines have them, values read and checked, and what names them.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { SettingField, SettingValue } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { readRegularFile } from '../files/regularFile.ts';

/** Bytes of a file that a setting names. */
const LARGEST_FILE = 512 * 1024 * 1024;

type Values = Readonly<Record<string, unknown>>;

const Property = z.looseObject({
  /** several where it may be null */
  type: z.union([z.string(), z.array(z.string())]).optional(),
  title: z.string().optional(),
  description: z.string().optional(),
  default: z.union([z.string(), z.number(), z.boolean(), z.null(), z.array(z.string())]).optional(),
  enum: z.array(z.string()).optional(),
  minimum: z.number().optional(),
  maximum: z.number().optional(),
  exclusiveMinimum: z.number().optional(),
  anyOf: z.array(z.looseObject({ type: z.string().optional() })).optional(),
  items: z.looseObject({ type: z.string().optional() }).optional(),
  /** of our own: the value is the path of a file */
  file: z.boolean().optional(),
});

/** Bounds that JSON Schema gives every whole number. */
const safe = (bound: number | undefined) =>
  bound === undefined || Math.abs(bound) >= Number.MAX_SAFE_INTEGER ? null : bound;

/** The fields of a schema, in its order. @throws EmendError 'internal' for what no form can show */
export function settingFields(settings: z.ZodType): SettingField[] {
  const { properties = {} } = z.toJSONSchema(settings, { io: 'input' });
  return Object.entries(properties).map(([key, property]): SettingField => {
    const outer = Property.parse(property);
    // A value or nothing: null is what the editor itself chooses.
    const inner = outer.anyOf && Property.parse(outer.anyOf.find(({ type }) => type !== 'null'));
    const { type: types, enum: options, minimum, maximum, exclusiveMinimum, items } = inner ?? outer;
    const type = Array.isArray(types) ? types.find((one) => one !== 'null') : types;
    let kind = type === 'array' && items?.type === 'string' ? 'texts' : type;
    if (options) kind = 'choice';
    if (outer.file ?? inner?.file) kind = 'file';
    if (!kind || !['choice', 'file', 'string', 'texts', 'number', 'integer', 'boolean'].includes(kind))
      throw new EmendError('internal', `The setting ${key} is of a kind that no form has: ${kind}.`);
    return {
      key,
      kind: kind as SettingField['kind'],
      label: outer.title ?? words(key),
      help: outer.description ?? '',
      default: outer.default ?? null,
      optional: inner !== undefined || (Array.isArray(types) && types.includes('null')),
      options: options ?? [],
      least: safe(minimum ?? exclusiveMinimum),
      most: safe(maximum),
    };
  });
}

/** `keyToken` as people write it. */
function words(key: string): string {
  const spaced = key.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

/** The option of a command line that gives a setting: `textLayer` as `--text-layer`. */
export const optionOf = (key: string): string =>
  `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** Options that give settings, without those that are as they are by default: `--layer 2`, `--no-end-token`. */
export function optionsOf(
  fields: readonly SettingField[],
  values: Values,
): Array<readonly [option: string, value: string | null]> {
  return fields.flatMap(({ key, default: otherwise }): Array<readonly [string, string | null]> => {
    const value = values[key];
    if (value === undefined || value === null || JSON.stringify(value) === JSON.stringify(otherwise))
      return [];
    const option = optionOf(key);
    if (typeof value === 'boolean') return [[value ? option : option.replace(/^--/, '--no-'), null]];
    return [[option, Array.isArray(value) ? value.join('\n') : String(value)]];
  });
}

/** Settings with defaults for what is not given. @throws EmendError 'invalid-input' that names the setting */
export function parseSettings<Settings extends object>(
  editor: string,
  schema: z.ZodType<Settings>,
  given: Values,
): Settings {
  const fields = settingFields(schema);
  const unknown = Object.keys(given).find((key) => !fields.some((field) => field.key === key));
  if (unknown !== undefined)
    throw new EmendError(
      'invalid-input',
      `${editor} has no setting ${unknown}. ${fields.length > 0 ? `It has ${fields.map(({ key }) => key).join(', ')}.` : 'It has none.'}`,
    );
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new EmendError(
    'invalid-input',
    `The setting ${issue.path.join('.')} of ${editor}: ${issue.message}.`,
  );
}

/** Values from texts such as `layer=5`. @throws EmendError 'invalid-input' for what is no value of its field */
export function settingsFromTexts(
  editor: string,
  fields: readonly SettingField[],
  texts: readonly string[],
): Record<string, SettingValue> {
  const values: Record<string, SettingValue> = {};
  for (const text of texts) {
    const [, key, value] = /^([^=]+)=(.*)$/s.exec(text) ?? [];
    if (key === undefined || value === undefined)
      throw new EmendError('invalid-input', `“${text}” is no setting. Write it as name=value.`);
    const field = fields.find((one) => one.key === key.trim());
    if (!field)
      throw new EmendError(
        'invalid-input',
        `${editor} has no setting ${key}. It has ${fields.map((one) => one.key).join(', ') || 'none'}.`,
      );
    values[field.key] = parsedValue(editor, field, value);
  }
  return values;
}

/** A value as it is typed. @throws EmendError 'invalid-input' for what is no value of its field */
export function parsedValue(
  editor: string,
  { key, kind, optional }: SettingField,
  text: string,
): SettingValue {
  if (optional && text === '') return null;
  if (kind === 'number' || kind === 'integer') {
    const number = Number(text);
    if (text.trim() !== '' && Number.isFinite(number)) return number;
    throw new EmendError('invalid-input', `The setting ${key} of ${editor} is a number, and not “${text}”.`);
  }
  if (kind === 'texts') return text.split('\n');
  if (kind !== 'boolean') return text;
  if (['true', 'yes', 'on'].includes(text)) return true;
  if (['false', 'no', 'off'].includes(text)) return false;
  throw new EmendError('invalid-input', `The setting ${key} of ${editor} is yes or no, and not “${text}”.`);
}

/**
 * Names an editor with these settings beside a model: sha256 of its name, the settings in a fixed order, and what the files among them
 * hold, wherever these lie. @throws EmendError 'not-found' for a file that is not there
 */
export async function settingsFingerprint(
  editor: string,
  schema: z.ZodType,
  settings: Values,
  model: string,
): Promise<string> {
  const told: Array<readonly [string, unknown]> = [];
  for (const { key, kind } of settingFields(schema)) {
    const value = settings[key];
    const named = kind === 'file' && typeof value === 'string' && value !== '';
    told.push([key, named ? sha256(await readRegularFile(value, LARGEST_FILE)) : value]);
  }
  const ordered = told.toSorted(([one], [other]) => (one < other ? -1 : 1));
  return sha256(JSON.stringify([editor, ordered, model]));
}

const sha256 = (of: string | Uint8Array): string => createHash('sha256').update(of).digest('hex');
