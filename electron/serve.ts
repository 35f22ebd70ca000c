/**
 * @file The same app for a machine without a display: page and API on 127.0.0.1. Whoever holds the one-time address gets a
 * cookie; nothing is answered to other hosts' names, other pages, or requests without it.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Application } from './api/application.ts';
import { wireError } from './api/router.ts';
import { EmendError } from './errors.ts';
import { readPageFile, SECURITY_HEADERS } from './frontends/pageFiles.ts';

/** A picture of 64 MB in base64, and then some. */
const BODY_LIMIT = 128 * 1024 * 1024;
const HEARTBEAT = 15_000;
/** Bytes a listener may be behind before it is let go; it connects again and reads the state anew. */
const EVENT_BACKLOG = 16 * 1024 * 1024;

export interface ServeOptions {
  readonly application: Application;
  /** folder of the built page */
  readonly page: string;
  /** 0: any free port */
  readonly port: number;
}

export interface Served {
  /** the address to open, good for one browser */
  readonly url: string;
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Serves page and API on 127.0.0.1.
 * @throws EmendError `conflict` when the port is taken, `invalid-input` when it cannot be had
 */
export async function serve(options: ServeOptions): Promise<Served> {
  const { application, page } = options;
  const session = randomBytes(32).toString('base64url');
  /** null once it was used */
  let token: string | null = randomBytes(32).toString('base64url');
  let port = options.port;

  const server = createServer((request, response) => {
    answer(request, response).catch((error) => {
      if (response.headersSent) response.destroy();
      else sendJson(response, statusOf(error), { error: wireError(error) });
    });
  });
  server.requestTimeout = 120_000;
  server.headersTimeout = 10_000;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const hosts = [`127.0.0.1:${port}`, `localhost:${port}`];
    const { host = '', origin } = request.headers;
    // A page elsewhere whose name was made to point here (DNS rebinding) still sends its own name.
    if (!hosts.includes(host)) throw new Refusal(403, `Emend answers only at http://127.0.0.1:${port}.`);
    if (origin !== undefined && origin !== `http://${host}`)
      throw new Refusal(403, 'Emend answers only its own page.');

    const url = request.url ?? '/';
    const [path = '/', query = ''] = url.split('?', 2);
    const known = sameSecret(cookie(request, `emend-${port}`), session);
    const given = new URLSearchParams(query).get('token');
    if (path === '/' && given !== null && request.method === 'GET') {
      if (!known) {
        if (!token || !sameSecret(given, token)) {
          throw new Refusal(
            403,
            'This address was used already, or is wrong. Start Emend again for a new one.',
          );
        }
        token = null;
        response.setHeader('set-cookie', `emend-${port}=${session}; HttpOnly; SameSite=Strict; Path=/`);
      }
      response.writeHead(302, { ...SECURITY_HEADERS, location: '/', 'cache-control': 'no-store' }).end();
      return;
    }
    if (!known) throw new Refusal(401, 'Open the address that Emend printed when it started.');

    if (path === '/api/call') return answerCall(application, request, response);
    if (request.method !== 'GET' && request.method !== 'HEAD')
      throw new Refusal(405, 'Only reading is possible here.');
    if (path === '/api/events') return sendEvents(application, response);
    const file = await readPageFile(page, path);
    if (!file) throw new Refusal(404, `There is no ${path} here.`);
    response.writeHead(200, { ...file.headers, 'content-length': file.body.length });
    response.end(request.method === 'HEAD' ? undefined : file.body);
  }

  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(cannotListen(error, options.port)));
    server.listen(options.port, '127.0.0.1', resolve);
  });
  port = (server.address() as AddressInfo).port;
  return {
    url: `http://127.0.0.1:${port}/?token=${token}`,
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** A request that is not answered, with its HTTP status. */
class Refusal extends EmendError {
  readonly status: number;
  constructor(status: number, message: string) {
    super('invalid-input', message);
    this.status = status;
  }
}

function statusOf(error: unknown): number {
  return error instanceof Refusal ? error.status : 500;
}

/** One call of the contract: 200 with `{ output }`, or with `{ error }` when the call itself failed. */
async function answerCall(
  application: Application,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== 'POST') throw new Refusal(405, 'Calls are posted.');
  // A form of another page cannot send this type without asking first.
  if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) {
    throw new Refusal(415, 'Calls are sent as application/json.');
  }
  const call = parseCall(await readBody(request));
  try {
    const output = await application.dispatch(call.name, call.input, { job: call.job });
    sendJson(response, 200, { output: output ?? null });
  } catch (error) {
    sendJson(response, 200, { error: wireError(error) });
  }
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const tooLarge = new Refusal(413, `A call holds at most ${BODY_LIMIT / 1024 / 1024} MB.`);
  if (Number(request.headers['content-length'] ?? 0) > BODY_LIMIT) throw tooLarge;
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_LIMIT) throw tooLarge;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function parseCall(body: Buffer): { name: string; input: unknown; job: string | undefined } {
  let call: unknown;
  try {
    call = JSON.parse(body.toString('utf8'));
  } catch {
    throw new Refusal(400, 'The call is not JSON.');
  }
  const { name, input, job } = (call ?? {}) as { name?: unknown; input?: unknown; job?: unknown };
  if (typeof name !== 'string') throw new Refusal(400, 'The call has no name.');
  if (job !== undefined && job !== null && typeof job !== 'string')
    throw new Refusal(400, 'A job id is a text.');
  return { name, input: input ?? {}, job: job ?? undefined };
}

/** Every event of the application as server-sent events, `{ name, payload }` each, until the listener leaves. */
function sendEvents(application: Application, response: ServerResponse): void {
  response.writeHead(200, {
    ...SECURITY_HEADERS,
    'content-type': 'text/event-stream',
    'cache-control': 'no-store',
  });
  response.write(': connected\n\n');
  const heartbeat = setInterval(() => response.write(': still here\n\n'), HEARTBEAT);
  const stop = application.onAny((event) => {
    response.write(`data: ${JSON.stringify(event)}\n\n`);
    if (response.writableLength > EVENT_BACKLOG) response.destroy();
  });
  response.once('close', () => {
    clearInterval(heartbeat);
    stop();
  });
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(JSON.stringify(value));
  const headers = {
    'content-type': 'application/json',
    'cache-control': 'no-store',
    'content-length': body.length,
  };
  response.writeHead(status, { ...SECURITY_HEADERS, ...headers }).end(body);
}

function cookie(request: IncomingMessage, name: string): string {
  for (const pair of (request.headers.cookie ?? '').split(';')) {
    const [key, value = ''] = pair.trim().split('=', 2);
    if (key === name) return value;
  }
  return '';
}

/** Compares without telling by its duration how much was right. */
function sameSecret(given: string, secret: string): boolean {
  const a = Buffer.from(given);
  const b = Buffer.from(secret);
  return a.length === b.length && timingSafeEqual(a, b);
}

function cannotListen(error: NodeJS.ErrnoException, port: number): EmendError {
  if (error.code === 'EADDRINUSE') {
    return new EmendError(
      'conflict',
      `Port ${port} is taken by another program. Choose another with --port, or leave it out.`,
    );
  }
  return new EmendError(
    'invalid-input',
    `Emend may not listen on port ${port}. Choose another with --port, or leave it out.`,
  );
}
