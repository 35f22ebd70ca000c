/**
 * @file Runs the speed measurement whose file name is given: `npm run bench -- many-edits`. Without a name it says which there are.
 */
import { globSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const files = globSync('**/*.bench.ts', { cwd: here }).sort();
const nameOf = (file: string) => basename(file, '.bench.ts');
/** The first sentence of its file comment. */
const about = (file: string) => {
  const comment = /@file([\s\S]*?)\*\//.exec(readFileSync(join(here, file), 'utf8'))?.[1] ?? '';
  return comment
    .replaceAll(/\s*\n \* ?/g, ' ')
    .trim()
    .split(/(?<=\.) /)[0];
};
const [wanted] = process.argv.slice(2);
const chosen = files.find((file) => nameOf(file) === wanted);
if (chosen) {
  console.log(`${nameOf(chosen)}:`);
  await import(pathToFileURL(join(here, chosen)).href);
} else {
  const list = files.map((file) => `  ${nameOf(file).padEnd(16)} ${about(file)}`).join('\n');
  const said =
    wanted === undefined ? 'Give the name of a measurement.' : `There is no measurement "${wanted}".`;
  console.error(`${said} There are:\n\n${list}`);
  process.exitCode = 1;
}
