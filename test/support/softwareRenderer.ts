/**
 * @file SwiftShader, a graphics card in software: what webgpu is tested on where there is none of another kind.
 * With EMEND_GRAPHICS_CARD=1 in the environment it is the machine's own card.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { availableProviders, type Provider } from '../../electron/tensor/session.ts';
import { chromiumFolder } from './browser.ts';

const ownCard = process.env.EMEND_GRAPHICS_CARD === '1';

/** Why there is no software renderer to test with, or null. */
export async function rendererHindrance(): Promise<string | null> {
  if (ownCard) return null;
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return 'SwiftShader is packed for Linux on x64 only';
  if (!availableProviders().includes('webgpu')) return 'this onnxruntime-node has no webgpu provider';
  const icd = join(await chromiumFolder(), 'vk_swiftshader_icd.json');
  return existsSync(icd) ? null : `${icd} is missing`;
}

/**
 * What a process reports that is started with these arguments and the provider behind them; it sends `{ report }` or `{ error }`. A
 * graphics driver is chosen by the environment a process starts with, so the test that compares providers cannot be it.
 */
export async function reportOn<T>(entry: string, args: readonly string[], provider: Provider): Promise<T> {
  const renderer = await chromiumFolder();
  const icd = join(renderer, 'vk_swiftshader_icd.json');
  const env: NodeJS.ProcessEnv =
    provider === 'cpu' || ownCard
      ? {}
      : {
          VK_ICD_FILENAMES: icd,
          VK_DRIVER_FILES: icd,
          LD_LIBRARY_PATH: [renderer, process.env.LD_LIBRARY_PATH].filter(Boolean).join(':'),
        };
  const child: ChildProcess = fork(entry, [...args, provider], {
    serialization: 'advanced',
    execArgv: [],
    env: { ...process.env, ...env },
  });
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  child.on('message', (message: { report: T } | { error: string }) =>
    'report' in message ? resolve(message.report) : reject(new Error(message.error)),
  );
  const ended = new Promise<void>((done) => {
    child.on('exit', (code, signal) => {
      reject(new Error(`The ${provider} process ended with ${signal ?? code} before it reported.`));
      done();
    });
  });
  const report = await promise;
  await ended;
  return report;
}
