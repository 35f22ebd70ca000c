/** @file `emend editors`: the editors of the workbench, and what each needs. */
import { Command } from 'commander';
import { editorKinds } from '../editors/registry.ts';

export function editorsCommand(): Command {
  return new Command('editors')
    .description('list the editors: what of the model each changes, and whether it must be trained first')
    .option('--json', 'machine-readable')
    .action(({ json }: { json?: boolean }) => {
      const list = editorKinds.map(({ name, acts, trains, byConstruction }) => ({
        ...{ name, acts, trains, byConstruction },
      }));
      if (json) {
        console.log(JSON.stringify(list, null, 2));
        return;
      }
      const width = Math.max(...list.map(({ name }) => name.length));
      for (const { name, acts, trains } of list)
        console.log(
          `${name.padEnd(width)}  changes ${acts}; ${trains ? 'trained on a model first (an adapter)' : 'nothing to train'}`,
        );
    });
}
