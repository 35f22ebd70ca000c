/**
 * @file What becomes of the sources in dist/: the page (default), the programs that run on Node and Electron (`--mode main`),
 * and the preload (`--mode preload`), which Electron's sandbox only takes as one CommonJS file.
 */
import { join } from 'node:path';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig, type UserConfig } from 'vite';

const root = import.meta.dirname;

const page: UserConfig = {
  root: join(root, 'renderer'),
  base: './',
  publicDir: false,
  plugins: [svelte({ configFile: false })],
  build: {
    outDir: join(root, 'dist/renderer'),
    emptyOutDir: true,
    // The content security policy forbids data: fonts and scripts; small files stay files.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'chrome140',
  },
};

const programs: UserConfig = {
  publicDir: false,
  ssr: { target: 'node', external: true },
  build: {
    ssr: true,
    target: 'node24',
    outDir: join(root, 'dist'),
    emptyOutDir: false,
    rolldownOptions: {
      input: {
        main: join(root, 'electron/main.ts'),
        cli: join(root, 'electron/cli.ts'),
        engineProcess: join(root, 'electron/engine/engineProcess.ts'),
        pictureProcess: join(root, 'electron/files/pictureProcess.ts'),
      },
      external: ['electron'],
      // Everything in one folder: the programs find each other beside themselves.
      output: { format: 'es', entryFileNames: '[name].js', chunkFileNames: '[name]-[hash].js' },
    },
  },
};

const preload: UserConfig = {
  publicDir: false,
  ssr: { target: 'node', noExternal: true },
  build: {
    ssr: join(root, 'electron/preload.ts'),
    target: 'chrome140',
    outDir: join(root, 'dist'),
    emptyOutDir: false,
    rolldownOptions: { external: ['electron'], output: { format: 'cjs', entryFileNames: 'preload.cjs' } },
  },
};

export default defineConfig(({ mode }) => {
  if (mode === 'main') return programs;
  return mode === 'preload' ? preload : page;
});
