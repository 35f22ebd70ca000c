/** @file `emend editors`: the editors of the workbench, and what each needs. */
import { Command } from 'commander';
import type { SettingField } from '../api/contract.ts';
import { editorKinds } from '../editors/registry.ts';
import { settingFields } from '../editors/settings.ts';

const scopeWords = {
  routed: 'the scope decides where its edits act',
  everywhere: 'its edits act everywhere',
  own: 'it decides itself where its edits act',
} as const;

export function editorsCommand(): Command {
  return new Command('editors')
    .description(
      'list the editors: what of the model each changes, whether it must be trained first, and its settings',
    )
    .option('--json', 'machine-readable')
    .action(({ json }: { json?: boolean }) => {
      const list = editorKinds.map(
        ({ name, acts, untrained, training, trainedScope = 'routed', byConstruction }) => ({
          ...{
            name,
            acts,
            trains: untrained === undefined,
            trainable: training !== undefined,
            byConstruction,
          },
          scope: untrained?.scope ?? trainedScope,
          settings: untrained ? settingFields(untrained.settings) : [],
        }),
      );
      if (json) {
        console.log(JSON.stringify(list, null, 2));
        return;
      }
      const width = Math.max(...list.map(({ name }) => name.length));
      for (const { name, acts, trains, trainable, scope, settings } of list) {
        const needs = trains ? 'trained on a model first (an adapter)' : 'nothing to train';
        console.log(
          `${name.padEnd(width)}  changes ${acts}; ${needs}${trainable && !trains ? ', but can be' : ''}; ${scopeWords[scope]}`,
        );
        for (const field of settings) console.log(`${' '.repeat(width)}    ${settingLine(field)}`);
      }
    });
}

/** A setting as it is given with --setting, by default, and what it is. */
function settingLine({ key, default: value, label, help, options, least, most }: SettingField): string {
  const limits = options.length > 0 ? ` (${options.join(', ')})` : rangeOf(least, most);
  return `--setting ${key}=${value ?? ''}  ${label}${limits}. ${help}`.trimEnd();
}

function rangeOf(least: number | null, most: number | null): string {
  if (least !== null && most !== null) return ` (${least} to ${most})`;
  return least === null ? '' : ` (from ${least})`;
}
