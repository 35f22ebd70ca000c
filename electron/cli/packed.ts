/** @file `emend packed`: the packed weights that are kept, and removing them. */
import { Command } from 'commander';
import { packedFolder } from '../frontends/places.ts';
import { listPacked, removePacked } from '../models/packed/cache.ts';
import { print } from './session.ts';

interface PackedOptions {
  folder: string;
  remove?: string;
  json?: boolean;
}

export function packedCommand(): Command {
  return new Command('packed')
    .description('list the packed weights that are kept, or remove one')
    .option('--folder <folder>', 'where they are kept', packedFolder())
    .option('--remove <name>', 'remove the one of this name; it is made again when it is needed')
    .option('--json', 'for programs')
    .action(async ({ folder, remove, json }: PackedOptions) => {
      if (remove !== undefined) await removePacked(folder, remove);
      const packed = await listPacked(folder);
      const lines = packed.map(({ name, bytes, model, form, used }) => {
        const size = `${(bytes / 1e9).toFixed(2)} GB`;
        return `${size.padStart(9)}  ${form}  ${used.slice(0, 10)}  ${(model || 'damaged').padEnd(24)}  ${name}`;
      });
      print(packed, lines.length > 0 ? lines.join('\n') : `There are none in ${folder}.`, json);
    });
}
