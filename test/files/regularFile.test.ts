import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readJson, readJsonIfThere } from '../../electron/files/json.ts';
import { readPictureFile } from '../../electron/files/picture.ts';
import { readRegularFile } from '../../electron/files/regularFile.ts';
import { openSafetensors } from '../../electron/files/safetensors.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-files-'));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string) => join(folder, name);

describe('a regular file', () => {
  it('is read to its end, whatever size it gave, and not beyond the limit', async () => {
    writeFileSync(at('seven'), 'letters');
    expect((await readRegularFile(at('seven'), 7)).toString()).toBe('letters');
    await expect(readRegularFile(at('seven'), 6)).rejects.toMatchObject({
      code: 'invalid-input',
      message: expect.stringContaining('larger than 6 bytes'),
    });
    writeFileSync(at('long'), 'x'.repeat(300_000));
    expect((await readRegularFile(at('long'), 300_000)).length).toBe(300_000);
  });

  it.runIf(process.platform === 'linux')('may say it is empty and be long', async () => {
    expect((await readRegularFile('/proc/self/environ', 1 << 20)).length).toBeGreaterThan(0);
    await expect(readRegularFile('/proc/self/environ', 2)).rejects.toMatchObject({ code: 'invalid-input' });
  });

  it('is told in words of ours when it is missing, in no folder, or a circle of links', async () => {
    writeFileSync(at('file'), '');
    symlinkSync('circle', at('circle'));
    for (const [name, what] of [
      ['nowhere', 'nowhere is missing'],
      ['file/inside', 'not a folder'],
      ['circle', 'in a circle'],
    ]) {
      const refused = expect.objectContaining({
        code: 'not-found',
        message: expect.stringContaining(what!),
      });
      await expect(readRegularFile(at(name!), 10)).rejects.toEqual(refused);
      await expect(readJson(at(name!))).rejects.toEqual(refused);
      await expect(openSafetensors(at(name!))).rejects.toEqual(refused);
    }
    await expect(readRegularFile(folder, 10)).rejects.toMatchObject({
      message: expect.stringContaining('a folder'),
    });
  });
});

describe.runIf(process.platform !== 'win32')('what is no regular file is refused at once', () => {
  beforeAll(() => {
    execFileSync('mkfifo', [at('pipe')]);
  });
  const readers = {
    json: readJson,
    'json if there': readJsonIfThere,
    picture: readPictureFile,
    safetensors: openSafetensors,
  };
  it.each(Object.entries(readers))(
    '%s: a pipe nobody writes to, and a device without end',
    async (_, read) => {
      for (const path of [at('pipe'), '/dev/zero']) {
        await expect(read(path)).rejects.toMatchObject({
          code: 'invalid-input',
          message: expect.stringContaining('a pipe or a device'),
        });
      }
    },
    5_000,
  );
});

describe('JSON', () => {
  it('is told where it goes wrong, without what stands there', async () => {
    writeFileSync(at('x.json'), '{"a": ');
    await expect(readJson(at('x.json'))).rejects.toMatchObject({
      code: 'damaged',
      message: `${at('x.json')} is not JSON: it ends too early.`,
    });
    writeFileSync(at('x.json'), '{\n  "a": 1,\n}');
    await expect(readJson(at('x.json'))).rejects.toMatchObject({
      message: expect.stringContaining('in line 3, character 1'),
    });
    writeFileSync(at('x.json'), '{"key": my secret}');
    await expect(readJson(at('x.json'))).rejects.toMatchObject({
      code: 'damaged',
      message: expect.not.stringMatching(/secret|key/),
    });
    await expect(readJson(at('x.json'), 3)).rejects.toMatchObject({ code: 'invalid-input' });
  });

  it('may be missing where that is allowed, but not a link that leads nowhere', async () => {
    expect(await readJsonIfThere(at('nowhere.json'))).toBeUndefined();
    symlinkSync('nowhere.json', at('dangling.json'));
    await expect(readJsonIfThere(at('dangling.json'))).rejects.toMatchObject({ code: 'not-found' });
  });
});
