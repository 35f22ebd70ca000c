/** @file Paths as people type, paste and drag them. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A path without the quotes of a shell or a file manager around it; `~` and file URLs understood. */
export function typedPath(text: string, home = homedir()): string {
  let path = text.trim();
  const quoted = /^(["'])(.*)\1$/s.exec(path);
  if (quoted) path = quoted[2]!;
  if (/^file:\/\//i.test(path)) {
    try {
      path = fileURLToPath(path);
    } catch {
      // Told as a path that is not there.
    }
  }
  if (path === '~') return home;
  return /^~[\\/]/.test(path) ? join(home, path.slice(2)) : path;
}

/** A word of a command as a shell reads it back. */
export const shellQuoted = (text: string): string =>
  /^[\w./:,-]+$/u.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
