/** @file A real headless Chromium for page tests, unpacked from npm: nothing of the system's is needed. */
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inflate } from '@sparticuz/chromium';
import { type Browser, chromium } from 'playwright-core';

const project = join(import.meta.dirname, '..', '..');
const packed = join(project, 'node_modules', '@sparticuz', 'chromium', 'bin');
const unpacked = join(project, 'node_modules', '.cache', 'chromium');

/**
 * The folder with `chromium`, its libraries, fonts and the software renderer's `vk_swiftshader_icd.json`.
 * Unpacked at first use (some 5 s, 250 MB) beside the place and moved there whole, so that test files may race for it.
 */
export async function chromiumFolder(): Promise<string> {
  if (existsSync(unpacked)) return unpacked;
  const draft = `${unpacked}.${process.pid}`;
  mkdirSync(draft, { recursive: true });
  const { TMPDIR } = process.env;
  try {
    // The package unpacks into the folder for temporary files, whose name it looks up when it is called.
    process.env.TMPDIR = draft;
    const archives = ['chromium.br', 'fonts.tar.br', 'swiftshader.tar.br', 'al2023.tar.br'];
    const unpacking = archives.map((name) => inflate(join(packed, name)));
    if (TMPDIR === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = TMPDIR;
    await Promise.all(unpacking);
    writeFileSync(
      join(draft, 'fonts.conf'),
      `<?xml version="1.0"?><fontconfig><dir>${join(unpacked, 'fonts', 'fonts')}</dir><dir>/usr/share/fonts</dir>` +
        `<cachedir>${join(unpacked, 'fontcache')}</cachedir></fontconfig>`,
    );
    renameSync(draft, unpacked);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    if (!existsSync(unpacked)) throw error;
  }
  return unpacked;
}

/** Starts Chromium. Close it when the tests are done. */
export async function openBrowser(): Promise<Browser> {
  // The packed one is for Linux on x64; elsewhere the tests use the Chrome that people have.
  if (process.platform !== 'linux' || process.arch !== 'x64') return chromium.launch({ channel: 'chrome' });
  const folder = await chromiumFolder();
  return chromium.launch({
    executablePath: join(folder, 'chromium'),
    // The sandbox wants kernel rights that containers do not give; the pages here are ours.
    args: ['--no-sandbox', '--no-zygote', '--disable-gpu', '--font-render-hinting=none'],
    env: {
      ...process.env,
      LD_LIBRARY_PATH: [join(folder, 'al2023', 'lib'), process.env.LD_LIBRARY_PATH].filter(Boolean).join(':'),
      FONTCONFIG_FILE: join(folder, 'fonts.conf'),
    },
  });
}
