/**
 * @file A process that writes to a library as fast as it can and tells each edit once its transaction is done.
 * `node writer.ts LIBRARY PICTURE COUNT NAME`
 */
import { writeSync } from 'node:fs';
import { commitEdit, createEdit } from '../../electron/library/edits.ts';
import { openLibrary } from '../../electron/library/library.ts';

const [path, picture, count, name] = process.argv.slice(2) as [string, string, string, string];
const library = openLibrary(path);
library.actors = { model: 'm', adapter: 'a' };
for (let i = 0; i < Number(count); i += 1) {
  const { id } = createEdit(library, { picture, prompt: `${name} ${i}?`, target: `answer ${i}` });
  writeSync(1, `created ${id}\n`);
  commitEdit(library, id, { reason: `reason ${i}` });
  writeSync(1, `committed ${id}\n`);
}
library.close();
