/** @file Opens the library named by its argument, as a user of few rights where it can, and tells what came of it. */
import { findEdit } from '../../electron/library/edits.ts';
import { openLibrary } from '../../electron/library/library.ts';
import { recentModels, rememberModel } from '../../electron/library/recentModels.ts';
import { writeSettings } from '../../electron/library/settings.ts';

// The administrator may write everywhere.
if (process.getuid?.() === 0) {
  process.setgid?.(65534);
  process.setuid?.(65534);
}
const library = openLibrary(process.argv[2]!);
rememberModel(library, { path: '/m', name: 'another', adapterPath: null, model: 'm', adapter: 'a' });
let refused: unknown = null;
try {
  writeSettings(library, { theme: 'dark' });
} catch (error) {
  const { code, message } = error as { code: string; message: string };
  refused = { code, message };
}
const told = {
  readOnly: library.readOnly,
  prompt: findEdit(library, 1).prompt,
  models: recentModels(library).length,
  refused,
};
library.close();
process.send?.(told);
