/** @file Builds dist/ with Vite: the page, the programs for Electron and Node, the preload. Run directly it builds all. */
import { existsSync, globSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { build as viteBuild } from 'vite';
import { projectFolder } from './frontends/places.ts';

interface Part {
  /** Vite mode that builds it, see vite.config.ts */
  readonly mode: 'page' | 'main' | 'preload';
  /** written last: newer than every source means nothing is to be done */
  readonly output: string;
  readonly sources: readonly string[];
}

const COMMON = ['vite.config.ts', 'package-lock.json', 'electron/api/contract.ts', 'electron/errors.ts'];
const PARTS: readonly Part[] = [
  { mode: 'page', output: 'dist/renderer/index.html', sources: [...COMMON, 'renderer/**/*'] },
  { mode: 'main', output: 'dist/main.js', sources: [...COMMON, 'electron/**/*.ts'] },
  { mode: 'preload', output: 'dist/preload.cjs', sources: [...COMMON, 'electron/preload.ts'] },
];

/** Builds those of `modes` that are missing or older than their sources. */
export async function buildStale(modes: ReadonlyArray<Part['mode']>): Promise<void> {
  for (const part of PARTS) if (modes.includes(part.mode) && isStale(part)) await build(part);
}

/** Builds everything anew. */
export async function buildAll(): Promise<void> {
  rmSync(join(projectFolder, 'dist'), { recursive: true, force: true });
  for (const part of PARTS) await build(part);
}

async function build({ mode }: Part): Promise<void> {
  await viteBuild({
    configFile: join(projectFolder, 'vite.config.ts'),
    mode,
    logLevel: 'warn',
  });
}

function isStale(part: Part): boolean {
  const output = join(projectFolder, part.output);
  if (!existsSync(output)) return true;
  const built = statSync(output).mtimeMs;
  return globSync([...part.sources], { cwd: projectFolder }).some(
    (source) => statSync(join(projectFolder, source)).mtimeMs > built,
  );
}

if (import.meta.main) await buildAll();
