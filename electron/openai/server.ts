/**
 * @file The OpenAI-compatible endpoint: HTTP on 127.0.0.1, for programs that hold the key. Pages are not answered, whatever they hold, and
 * nobody under another host's name.
 */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { AnswerToken, ChatAnswer } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { isKey, type KeptKey } from './key.ts';
import { asOpenAiError, OpenAiError } from './openAiError.ts';
import { readPicture } from './pictures.ts';
import { chunk, completion, emendField, type ReplyHead, usageChunk } from './reply.ts';
import { type ChatQuestion, readChatRequest } from './request.ts';
import { RequestQueue } from './requestQueue.ts';

/** Sixteen pictures of a camera in base64, and then some. */
const BODY_LIMIT = 128 * 1024 * 1024;
/** Requests that wait while one is answered. */
export const USUAL_QUEUE = 16;
/** What is put behind a model's name to ask it as it is without any edit. */
const ORIGINAL = '@original';

/** A conversation to go on with. */
export interface ServiceRequest {
  readonly turns: ReadonlyArray<{
    readonly role: 'system' | 'user' | 'assistant';
    readonly text: string;
    readonly pictures: readonly Uint8Array[];
  }>;
  readonly edits: 'none' | 'committed';
  readonly maxNewTokens: number | undefined;
  readonly sampling: ChatQuestion['sampling'];
  readonly stop: readonly string[];
  readonly alternatives: number;
}

/** What answers. */
export interface ChatService {
  /** Waits while a model opens. @throws EmendError when none is open */
  model(): Promise<{ readonly name: string; readonly opened: Date }>;
  /** `onToken`: each token, and what is certain of the text by then and was not told before. */
  chat(
    request: ServiceRequest,
    signal: AbortSignal,
    onToken: (token: AnswerToken, text: string) => void,
  ): Promise<ChatAnswer>;
}

export interface EndpointOptions {
  readonly service: ChatService;
  readonly key: KeptKey;
  /** 0: any free one */
  readonly port: number;
  /** folders whose pictures may be named */
  readonly folders: readonly string[];
  /** requests that may wait while one is answered */
  readonly queue?: number;
}

export interface RunningEndpoint {
  readonly port: number;
  /** what clients take as base URL */
  readonly url: string;
  close(): Promise<void>;
}

/** @throws EmendError 'conflict' when the port is taken, 'invalid-input' when it cannot be had */
export async function startEndpoint(options: EndpointOptions): Promise<RunningEndpoint> {
  const { service, key, folders } = options;
  const queue = new RequestQueue(options.queue ?? USUAL_QUEUE);
  let port = options.port;

  const server = createServer((request, response) => {
    answer(request, response).catch((thrown) => {
      const error = asOpenAiError(thrown);
      if (response.headersSent) response.destroy();
      else sendJson(response, error.status, error.body, request);
    });
  });
  server.requestTimeout = 120_000;
  server.headersTimeout = 10_000;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { host = '', origin, authorization = '' } = request.headers;
    // A page elsewhere whose name was made to point here (DNS rebinding) still sends its own name.
    if (![`127.0.0.1:${port}`, `localhost:${port}`].includes(host))
      throw new OpenAiError(
        403,
        `This endpoint answers only at http://127.0.0.1:${port}.`,
        'host_not_allowed',
      );
    if (origin !== undefined && origin !== `http://${host}`)
      throw new OpenAiError(403, 'This endpoint does not answer pages of other sites.', 'origin_not_allowed');
    const bearer = /^Bearer +(\S+)$/i.exec(authorization)?.[1];
    if (bearer === undefined || !isKey(bearer, key)) {
      throw new OpenAiError(
        401,
        bearer === undefined
          ? 'Send the key as "Authorization: Bearer emend-…".'
          : 'This is not the key of this endpoint. Emend showed it when it was made, and can make another.',
        'invalid_api_key',
      );
    }
    const path = (request.url ?? '/').split('?', 1)[0]!;
    if (path === '/v1/chat/completions') {
      allowOnly(request, 'POST');
      return answerChat(request, response);
    }
    if (path === '/v1/models' || path.startsWith('/v1/models/')) {
      allowOnly(request, 'GET');
      return answerModels(path.slice('/v1/models/'.length), request, response);
    }
    throw new OpenAiError(
      404,
      `There is no ${path.slice(0, 200)} here; there are /v1/models and /v1/chat/completions.`,
      'unknown_url',
    );
  }

  async function answerModels(
    name: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const model = await service.model();
    const created = Math.floor(model.opened.getTime() / 1000);
    const data = [model.name, model.name + ORIGINAL].map((id) => ({
      id,
      object: 'model',
      created,
      owned_by: 'emend',
    }));
    if (name === '') return sendJson(response, 200, { object: 'list', data }, request);
    const wanted = decoded(name);
    const found = data.find(({ id }) => id === wanted);
    if (!found) throw unknownModel(wanted, model.name);
    sendJson(response, 200, found, request);
  }

  async function answerChat(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.once('close', () => {
      if (!response.writableFinished) gone.abort();
    });
    const question = readChatRequest(parseBody(await readBody(request)));
    const end = await queue.enter(gone.signal);
    try {
      const { name } = await service.model();
      const original = question.model === name + ORIGINAL;
      if (!original && question.model !== name) throw unknownModel(question.model, name);
      const asked = await serviceRequest(question, original, folders);
      const head: ReplyHead = {
        id: `chatcmpl-${randomUUID()}`,
        created: Math.floor(Date.now() / 1000),
        model: question.model,
      };
      if (question.stream) await stream(response, head, question, asked, gone.signal);
      else {
        const told = await service.chat(asked, gone.signal, () => {});
        const emend = emendField(told, original, question.ignored);
        sendJson(response, 200, completion(head, told, question.topLogprobs, emend), request);
      }
    } finally {
      end();
    }
  }

  /** The reply begins with the first token, so that what is wrong with the request is told with its status. */
  async function stream(
    response: ServerResponse,
    head: ReplyHead,
    question: ChatQuestion,
    asked: ServiceRequest,
    signal: AbortSignal,
  ): Promise<void> {
    const { topLogprobs } = question;
    const send = (value: object | string) => {
      // A client that left is heard of by the signal; nothing more is written to it.
      if (response.destroyed) return;
      if (!response.headersSent) {
        response.writeHead(200, { ...HEADERS, 'content-type': 'text/event-stream; charset=utf-8' });
        response.write(`data: ${JSON.stringify(chunk(head, { role: 'assistant', content: '' }))}\n\n`);
      }
      response.write(`data: ${typeof value === 'string' ? value : JSON.stringify(value)}\n\n`);
    };
    let told = 0;
    let tokens: AnswerToken[] = [];
    try {
      const answer = await service.chat(asked, signal, (token, text) => {
        tokens.push(token);
        // Halves of a character have no text of their own; their tokens go with the next piece.
        if (text === '') return;
        told += text.length;
        send(chunk(head, { content: text }, { tokens, topLogprobs }));
        tokens = [];
      });
      const rest = answer.text.slice(told);
      if (rest !== '' || tokens.length > 0)
        send(chunk(head, rest === '' ? {} : { content: rest }, { tokens, topLogprobs }));
      const emend = emendField(answer, asked.edits === 'none', question.ignored);
      send(chunk(head, {}, { answer, emend }));
      if (question.includeUsage) send(usageChunk(head, answer));
    } catch (thrown) {
      if (!response.headersSent) throw thrown;
      send(asOpenAiError(thrown).body);
    }
    send('[DONE]');
    response.end();
  }

  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(cannotListen(error, options.port)));
    server.listen(options.port, '127.0.0.1', resolve);
  });
  port = (server.address() as AddressInfo).port;
  return {
    port,
    url: `http://127.0.0.1:${port}/v1`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function serviceRequest(
  question: ChatQuestion,
  original: boolean,
  folders: readonly string[],
): Promise<ServiceRequest> {
  const turns = [];
  for (const { role, text, pictures } of question.messages) {
    const read: Uint8Array[] = [];
    for (const { url, param } of pictures) read.push(await readPicture(url, folders, param));
    turns.push({ role, text, pictures: read });
  }
  return {
    turns,
    edits: original ? 'none' : 'committed',
    maxNewTokens: question.maxNewTokens ?? undefined,
    sampling: question.sampling,
    stop: question.stop,
    alternatives: question.topLogprobs ?? 0,
  };
}

function unknownModel(asked: string, name: string): OpenAiError {
  return new OpenAiError(
    404,
    `There is no model "${asked.slice(0, 200)}" here; there are "${name}" and, without any edit, "${name}${ORIGINAL}".`,
    'model_not_found',
    'model',
  );
}

function allowOnly(request: IncomingMessage, method: string): void {
  if (request.method !== method)
    throw new OpenAiError(405, `${request.method} is not possible here; ${method} is.`, 'method_not_allowed');
}

function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? ''))
    throw new OpenAiError(415, 'Requests are sent as application/json.', 'unsupported_media_type');
  const tooLarge = new OpenAiError(
    413,
    `A request holds at most ${BODY_LIMIT / 1024 / 1024} MB.`,
    'request_too_large',
  );
  if (Number(request.headers['content-length'] ?? 0) > BODY_LIMIT) throw tooLarge;
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > BODY_LIMIT) throw tooLarge;
    chunks.push(part);
  }
  return Buffer.concat(chunks);
}

function parseBody(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    throw new OpenAiError(400, 'The request is not JSON.', 'invalid_json');
  }
}

const HEADERS = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'cross-origin-resource-policy': 'same-origin',
};

function sendJson(response: ServerResponse, status: number, value: object, request: IncomingMessage): void {
  const body = Buffer.from(JSON.stringify(value));
  // What was refused before it was read is not read afterwards either.
  if (!request.complete) response.setHeader('connection', 'close');
  response
    .writeHead(status, {
      ...HEADERS,
      'content-type': 'application/json',
      'content-length': body.length,
      ...(status === 429 && { 'retry-after': '2' }),
    })
    .end(body);
}

function cannotListen(error: NodeJS.ErrnoException, port: number): EmendError {
  if (error.code === 'EADDRINUSE') {
    return new EmendError(
      'conflict',
      `Port ${port} is taken by another program, perhaps another Emend. Choose another port for the endpoint.`,
    );
  }
  return new EmendError('invalid-input', `The endpoint may not listen on port ${port}. Choose another.`);
}
