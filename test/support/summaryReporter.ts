/** @file Ends a test run with one plain line, `N passed, N failed, N skipped`, and leaves it in .cache/ for scripts. */
import { mkdirSync, writeFileSync } from 'node:fs';
import type { Reporter, SerializedError, TestModule, TestRunEndReason } from 'vitest/node';

export default class SummaryReporter implements Reporter {
  onTestRunEnd(
    modules: readonly TestModule[],
    unhandled: readonly SerializedError[],
    reason: TestRunEndReason,
  ): void {
    let passed = 0;
    let skipped = 0;
    // An error outside any test (a file that does not load, a rejection nobody handled) fails the run too.
    let failed = unhandled.length;
    for (const module of modules) {
      failed += module.errors().length;
      // A hook that fails leaves its suite's tests skipped.
      for (const suite of module.children.allSuites()) failed += suite.errors().length;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'passed') passed++;
        if (state === 'failed') failed++;
        if (state === 'skipped') skipped++;
      }
    }
    // A setup that fails before any test is in none of the lists.
    if (reason === 'failed' && failed === 0) failed = 1;
    const line = `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
    mkdirSync('.cache', { recursive: true });
    writeFileSync('.cache/test-summary.txt', `${line}\n`);
    console.log(line);
  }
}
