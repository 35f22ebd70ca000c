/**
 * @file What people type for settings of editors and trainings, and what is wrong with it.
 */
import type { SettingField, SettingValue } from '../../electron/api/contract.ts';

const isNumber = ({ kind }: SettingField) => kind === 'number' || kind === 'integer';

/** A value as a field shows it. */
export const textOf = (value: SettingValue): string =>
  Array.isArray(value) ? value.join('\n') : String(value ?? '');

/** What was typed, as the field's value; a number that is none yet is nothing. */
export function typedValue(field: SettingField, text: string): SettingValue {
  if (isNumber(field)) {
    const number = Number(text);
    return text.trim() === '' || !Number.isFinite(number) ? null : number;
  }
  if (field.optional && text.trim() === '') return null;
  return field.kind === 'texts' ? text.split('\n') : text;
}

/** What keeps these settings from being used, in a sentence; '' for nothing. */
export function lackOf(
  fields: readonly SettingField[],
  values: Readonly<Record<string, SettingValue>>,
): string {
  const unset = fields.find(({ key, optional }) => !optional && (values[key] ?? null) === null);
  if (unset) return `Give a value for “${unset.label}”.`;
  for (const { key, label, kind, least, most } of fields) {
    const value = values[key];
    if (typeof value !== 'number') continue;
    if (kind === 'integer' && !Number.isInteger(value)) return `${label} is a whole number.`;
    if (least !== null && value < least) return `${label} is ${least} at least.`;
    if (most !== null && value > most) return `${label} is ${most} at most.`;
  }
  return '';
}
