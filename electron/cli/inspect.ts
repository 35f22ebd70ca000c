/** @file `emend inspect`: what a checkpoint folder holds, read from its headers alone. */
import { Command } from 'commander';
import { operations } from '../engine/operations.ts';
import { packedFolder } from '../frontends/places.ts';
import { print } from './session.ts';

export function inspectCommand(): Command {
  return new Command('inspect')
    .description('show what a checkpoint folder holds')
    .argument('<folder>', 'ordinary Hugging Face folder of a LLaVA-architecture model')
    .option('--json', 'print everything, tensors included, for programs')
    .action(async (folder: string, { json }: { json?: boolean }) => {
      const context = { signal: new AbortController().signal, send: () => {} };
      const { summary, tensors } = await operations.inspect({ path: folder }, context);
      const files = [...new Set(tensors.map(({ file }) => file))];
      const lines: Array<[string, string]> = [
        ['name', summary.name],
        ['architecture', summary.architecture],
        ['decoder', `${summary.layers} layers, ${summary.hidden} wide`],
        ['picture', `${summary.visualTokens} visual tokens`],
        ['parameters', summary.parameters.toLocaleString('en')],
        ['weights', `${summary.dtype}, ${tensors.length} tensors in ${files.join(', ')}`],
        ['fingerprint', summary.fingerprint],
      ];
      const text = lines.map(([label, value]) => `${label.padEnd(14)}${value}`).join('\n');
      const { ways, proposed, available } = await operations.ways(
        { path: folder, providers: [], packed: { folder: packedFolder(), limitBytes: 0 } },
        context,
      );
      const opening = ways.map(({ form, provider, fits, reason }) => {
        const mark =
          fits === null ? '?' : fits ? (form === proposed && provider === 'cpu' ? '✓ best' : '✓') : '✗';
        return `${`${provider} ${form}`.padEnd(14)}${mark.padEnd(8)}${reason}`;
      });
      print(
        { ...summary, tensors, ways, proposed, available },
        `${text}\n\nopening it on\n${opening.join('\n')}`,
        json,
      );
    });
}
