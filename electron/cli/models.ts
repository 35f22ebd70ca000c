/** @file `emend models discover`: which models lie in the Hugging Face cache of this machine, and what can be done with each. */
import { Command } from 'commander';
import { type FoundModel, findModels, hubCaches } from '../models/hubCache.ts';
import { print } from './session.ts';

export function modelsCommand(): Command {
  const discover = new Command('discover')
    .description('list the models in the Hugging Face cache of this machine, and what Emend can do with each')
    .option('--json', 'print everything, for programs')
    .action(async ({ json }: { json?: boolean }) => {
      const found = await findModels(hubCaches());
      print(found, forPeople(found), json);
    });
  return new Command('models').description('models on this machine').addCommand(discover);
}

function forPeople({ caches, models, more }: Awaited<ReturnType<typeof findModels>>): string {
  if (models.length === 0) return `No models in ${caches.join(' or ')}.`;
  const lines = models.flatMap((model) => [`${model.name}  ${told(model)}`, `  ${model.path}`]);
  if (more > 0) lines.push(`${more} more were not looked at.`);
  return lines.join('\n');
}

function told({ state, family, parameters, dtype, bytes, reason }: FoundModel): string {
  if (state !== 'opens') return `${state}: ${reason}`;
  const gigabytes = (bytes / 2 ** 30).toFixed(1);
  return `opens (${family}, ${(parameters! / 1e9).toFixed(2)} billion parameters, ${dtype}, ${gigabytes} GiB)`;
}
