import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { replaceFile, replaceFiles } from '../../electron/files/replaceFile.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'emend-replace-'));
});
afterEach(() => rmSync(folder, { recursive: true }));
const at = (name: string) => join(folder, name);

test('where one of several cannot be written, none is replaced and nothing is left', async () => {
  writeFileSync(at('a'), 'old a');
  writeFileSync(at('b'), 'old b');
  const failing = replaceFiles([
    [at('a'), (handle) => handle.writeFile('new a')],
    [at('b'), () => Promise.reject(new Error('no'))],
  ]);
  await expect(failing).rejects.toThrow('no');
  expect(readFileSync(at('a'), 'utf8')).toBe('old a');
  expect(readdirSync(folder).sort()).toEqual(['a', 'b']);
  await replaceFiles([
    [at('a'), (handle) => handle.writeFile('new a')],
    [at('b'), (handle) => handle.writeFile('new b')],
  ]);
  expect(['a', 'b'].map((name) => readFileSync(at(name), 'utf8'))).toEqual(['new a', 'new b']);
});

test('a disk that is full is said to be, and what was there stays', async () => {
  writeFileSync(at('a'), 'old a');
  const full = () => Promise.reject(Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' }));
  await expect(replaceFile(at('a'), full)).rejects.toMatchObject({
    code: 'conflict',
    message: expect.stringContaining(`The disk is full: ${at('a')}`),
  });
  expect(readFileSync(at('a'), 'utf8')).toBe('old a');
  expect(readdirSync(folder)).toEqual(['a']);
});

test('what a killed writer left is cleared by the next; what a living one writes is not', async () => {
  const module = join(import.meta.dirname, '../../electron/files/replaceFile.ts');
  const script = `
    const { replaceFile } = await import(${JSON.stringify(module)});
    await replaceFile(process.argv[1], async (handle) => {
      await handle.writeFile('half');
      console.log('writing');
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    });`;
  const writer = spawn(process.execPath, ['--input-type=module', '-e', script, at('file')]);
  try {
    await once(writer.stdout, 'data');
    await replaceFile(at('file'), (handle) => handle.writeFile('whole'));
    expect(readdirSync(folder)).toHaveLength(2);
    const gone = once(writer, 'exit');
    writer.kill('SIGKILL');
    await gone;
    expect(readdirSync(folder)).toHaveLength(2);
    await replaceFile(at('file'), (handle) => handle.writeFile('whole again'));
    expect(readdirSync(folder)).toEqual(['file']);
    expect(readFileSync(at('file'), 'utf8')).toBe('whole again');
  } finally {
    writer.kill('SIGKILL');
  }
});
