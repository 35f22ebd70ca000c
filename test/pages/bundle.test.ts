import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { startEngine } from '../../electron/engine/supervisor.ts';

const dist = join(import.meta.dirname, '../../dist');

test('the bundled command line finds its package', () => {
  const version = execFileSync(process.execPath, [join(dist, 'cli.js'), '--version'], { encoding: 'utf8' });
  expect(version.trim()).toMatch(/^\d+\.\d+\.\d+$/);
});

test('the bundled engine starts and answers', async () => {
  const engine = startEngine({
    launch: () => forkEngine(join(dist, 'engineProcess.js')),
    patience: { deaths: 1 },
  });
  try {
    const missing = engine.call('inspect', { path: join(dist, 'no such model') });
    await expect(missing).rejects.toMatchObject({ code: 'not-found' });
  } finally {
    await engine.stop();
  }
});
