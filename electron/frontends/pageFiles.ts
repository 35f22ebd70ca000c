/** @file The built page's files, as the window's own protocol and the loopback server hand them out. */
import { readFile, realpath } from 'node:fs/promises';
import { extname, join, sep } from 'node:path';

/** Nothing from elsewhere, nothing inline but the style attributes Svelte writes; pictures also from the page's own memory. */
export const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "style-src-attr 'unsafe-inline'",
  "img-src 'self' data: blob:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** Sent with every answer, page or not. */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': CONTENT_SECURITY_POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
  '.txt': 'text/plain; charset=utf-8',
};

export interface PageFile {
  readonly body: Buffer<ArrayBuffer>;
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * The file of `folder` that `path`, the path of a URL as it was sent, names; `/` is index.html.
 * Null for anything that is not a file of a known kind inside `folder`, however it is spelt.
 */
export async function readPageFile(folder: string, path: string): Promise<PageFile | null> {
  const name = decode(path);
  if (name === null || /[\\\0]/.test(name) || name.split('/').some((part) => part.startsWith('.')))
    return null;
  const wanted = name === '/' ? 'index.html' : name;
  const type = TYPES[extname(wanted)];
  if (!type) return null;
  try {
    const root = await realpath(folder);
    const file = await realpath(join(root, wanted));
    if (!file.startsWith(root + sep)) return null;
    // Names under assets/ hold a hash of their content.
    const caching = name.startsWith('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache';
    const headers = { ...SECURITY_HEADERS, 'content-type': type, 'cache-control': caching };
    return { body: await readFile(file), headers };
  } catch {
    return null;
  }
}

function decode(path: string): string | null {
  try {
    return decodeURIComponent(path);
  } catch {
    return null;
  }
}
