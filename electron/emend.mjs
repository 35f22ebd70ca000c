#!/usr/bin/env node
/** @file The `emend` command: the command line, run by Node 24, from the sources or from dist/ where only that exists. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { runWithNode24 } from './node24.mjs';

const folder = import.meta.dirname ?? new URL('.', import.meta.url).pathname;
const source = join(folder, 'cli.ts');
try {
  runWithNode24(existsSync(source) ? source : join(folder, '..', 'dist', 'cli.js'), process.argv.slice(2));
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
