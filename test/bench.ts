/**
 * @file Runs the speed measurements whose file name is given: `npm run bench -- many-edits`; all of them without a name.
 */
import { globSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const files = globSync('**/*.bench.ts', { cwd: here }).sort();
const nameOf = (file: string) => basename(file, '.bench.ts');
const [wanted] = process.argv.slice(2);
const chosen = files.filter((file) => wanted === undefined || nameOf(file) === wanted);
if (chosen.length === 0) {
  console.error(`There is no measurement "${wanted}". There are: ${files.map(nameOf).join(', ')}.`);
  process.exitCode = 1;
}
for (const file of chosen) {
  console.log(`${nameOf(file)}:`);
  await import(pathToFileURL(join(here, file)).href);
}
