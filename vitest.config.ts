/** @file How the tests run: real processes, files and pages, a few at a time. Those of test/pages/ need the page built. */
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [svelte({ configFile: false })],
  test: {
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    reporters: ['default', './test/support/summaryReporter.ts'],
    projects: [
      { extends: true, test: { name: 'parts', include: ['test/**/*.test.ts'], exclude: ['test/pages/**'] } },
      {
        extends: true,
        test: {
          name: 'pages',
          include: ['test/pages/**/*.test.ts'],
          // Every wait in them is bounded by itself; on a busy machine many of them, one after the other, take a while.
          testTimeout: 240_000,
          globalSetup: './test/support/builtPage.ts',
        },
      },
    ],
  },
});
