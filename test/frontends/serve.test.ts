import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { type Program, startProgram } from '../../electron/frontends/program.ts';
import { type Served, serve } from '../../electron/serve.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-serve-'));
const page = join(folder, 'page');
let program: Program;
let served: Served;
let cookie: string;

interface Reply {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

/** A request as written: fetch would tidy paths and refuse to send Host and Origin. */
function send(
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const sent = request(
      { host: '127.0.0.1', port: served.port, path, method: options.method, headers: options.headers },
      (reply) => {
        let body = '';
        reply.setEncoding('utf8').on('data', (chunk: string) => {
          body += chunk;
        });
        reply.on('end', () => resolve({ status: reply.statusCode ?? 0, headers: reply.headers, body }));
      },
    );
    sent.on('error', reject);
    sent.end(options.body);
  });
}

function call(body: unknown, headers: Record<string, string> = {}): Promise<Reply> {
  return send('/api/call', {
    method: 'POST',
    headers: { cookie, 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
}

beforeAll(async () => {
  mkdirSync(join(page, 'assets'), { recursive: true });
  writeFileSync(join(page, 'index.html'), '<!doctype html><title>Emend</title>');
  writeFileSync(join(page, 'assets', 'page-abc.js'), 'export {};');
  writeFileSync(join(folder, 'secret.json'), '{"secret":1}');
  symlinkSync(join(folder, 'secret.json'), join(page, 'link.json'));
  program = await startProgram({
    library: join(folder, 'library.emend'),
    launch: () => forkEngine(join(import.meta.dirname, '../engine/plainEngine.ts')),
    startModel: 'none',
  });
  served = await serve({ application: program.application, page, port: 0 });
  const first = await send(served.url.slice(served.url.indexOf('/?')));
  cookie = String(first.headers['set-cookie']).split(';')[0] ?? '';
});

afterAll(async () => {
  await served.close();
  await program.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('who is answered', () => {
  test('the token in the address is exchanged for a cookie scripts cannot read, once', async () => {
    const other = await serve({ application: program.application, page, port: 0 });
    const address = new URL(other.url);
    const ask = () => fetch(address, { redirect: 'manual' });
    const first = await ask();
    expect(first.status).toBe(302);
    expect(first.headers.get('location')).toBe('/');
    expect(first.headers.get('set-cookie')).toMatch(
      /^emend-\d+=[\w-]{43}; HttpOnly; SameSite=Strict; Path=\/$/,
    );
    expect((await ask()).status).toBe(403);
    address.searchParams.set('token', 'x'.repeat(43));
    expect((await ask()).status).toBe(403);
    await other.close();
  });

  test.each(['/', '/index.html', '/api/events', '/api/call'])(
    '%s is not told to those without the cookie',
    async (path) => {
      expect((await send(path)).status).toBe(401);
      expect((await send(path, { headers: { cookie: cookie.replace(/.$/, '-') } })).status).toBe(401);
    },
  );

  test('another host name is refused, with the cookie too', async () => {
    for (const host of [
      'evil.example',
      `evil.example:${served.port}`,
      '127.0.0.1',
      `127.0.0.1:${served.port + 1}`,
    ]) {
      expect((await send('/', { headers: { cookie, host } })).status).toBe(403);
    }
    expect((await send('/', { headers: { cookie, host: `localhost:${served.port}` } })).status).toBe(200);
  });

  test("another page's requests are refused, with the cookie too", async () => {
    for (const origin of [
      'http://evil.example',
      'null',
      `http://127.0.0.1:${served.port + 1}`,
      `https://127.0.0.1:${served.port}`,
    ]) {
      expect((await call({ name: 'app.status', input: {} }, { origin })).status).toBe(403);
    }
    const own = await call({ name: 'app.status', input: {} }, { origin: `http://127.0.0.1:${served.port}` });
    expect(own.status).toBe(200);
  });
});

describe('the page', () => {
  test('comes with a content security policy that allows nothing from elsewhere', async () => {
    const reply = await send('/', { headers: { cookie } });
    expect(reply.body).toContain('<title>Emend</title>');
    expect(reply.headers['x-content-type-options']).toBe('nosniff');
    const policy = String(reply.headers['content-security-policy']);
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("script-src 'self';");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toMatch(/unsafe-eval|script-src[^;]*unsafe-inline|https?:|\*/);
    expect((await send('/assets/page-abc.js', { headers: { cookie } })).headers['content-type']).toMatch(
      /^text\/javascript/,
    );
  });

  test.each([
    '/../secret.json',
    '/%2e%2e/secret.json',
    '/assets/..%2f..%2fsecret.json',
    '/..%5csecret.json',
    '/assets/../../secret.json',
    '//etc/passwd',
    '/link.json',
    '/index.html%00.json',
    '/%',
    '/assets',
    '/missing.js',
  ])('%s is not a file of it', async (path) => {
    const reply = await send(path, { headers: { cookie } });
    expect(reply.status).toBe(404);
    expect(reply.body).not.toContain('secret":');
  });
});

describe('calls', () => {
  test('are answered with what the application says', async () => {
    const { status, body } = await call({ name: 'app.status', input: {} });
    expect(status).toBe(200);
    expect(JSON.parse(body)).toMatchObject({ output: { library: { name: 'library' }, model: null } });
  });

  test('that fail carry code and message', async () => {
    const { status, body } = await call({ name: 'edits.show', input: { id: 4000 } });
    expect(status).toBe(200);
    expect(JSON.parse(body)).toEqual({ error: { code: expect.any(String), message: expect.any(String) } });
  });

  test.each([
    ['no JSON', 'hello', 400, {}],
    ['no name', { input: {} }, 400, {}],
    ['a number for a job', { name: 'app.status', job: 4 }, 400, {}],
    ["a form's type", { name: 'app.status' }, 415, { 'content-type': 'text/plain' }],
  ])('with %s are refused', async (_what, body, status, headers) => {
    const reply = await call(body, headers as Record<string, string>);
    expect(reply.status).toBe(status);
    expect(JSON.parse(reply.body)).toMatchObject({ error: { code: 'invalid-input' } });
  });

  test('that announce more than the limit are refused unread', async () => {
    const reply = await new Promise<number>((resolve, reject) => {
      const headers = {
        cookie,
        'content-type': 'application/json',
        'content-length': String(200 * 1024 * 1024),
      };
      const sent = request(
        { host: '127.0.0.1', port: served.port, path: '/api/call', method: 'POST', headers },
        (answer) => {
          resolve(answer.statusCode ?? 0);
          sent.destroy();
        },
      );
      sent.on('error', reject);
      sent.flushHeaders();
    });
    expect(reply).toBe(413);
  });
});

test('events reach who listens', async () => {
  const abort = new AbortController();
  const response = await fetch(`http://127.0.0.1:${served.port}/api/events`, {
    headers: { cookie },
    signal: abort.signal,
  });
  expect(response.headers.get('content-type')).toBe('text/event-stream');
  const reader = response.body!.getReader();
  const decoder = new TextDecoder();
  let text = '';
  const engine = program.engine.call('open', { path: 'm', adapter: null, providers: [], template: 'plain' });
  while (!text.includes('"name":"app.status"')) text += decoder.decode((await reader.read()).value);
  await engine;
  abort.abort();
  expect(text).toMatch(/^: connected\n\n/);
  expect(JSON.parse(/data: (.*)\n/.exec(text)?.[1] ?? '')).toMatchObject({
    name: 'app.status',
    payload: { library: {} },
  });
});

test('a port that is taken is told', async () => {
  const again = serve({ application: program.application, page, port: served.port });
  await expect(again).rejects.toMatchObject({
    code: 'conflict',
    message: expect.stringContaining(String(served.port)),
  });
});
