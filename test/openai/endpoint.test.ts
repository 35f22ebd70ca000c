/** @file The endpoint as other programs meet it: the official client and curl, on the demo model with a committed edit. */
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { type Program, startProgram } from '../../electron/frontends/program.ts';
import { makeKey } from '../../electron/openai/key.ts';
import { holdable } from '../support/holdableEngine.ts';

const home = mkdtempSync(join(tmpdir(), 'emend-endpoint-'));
const lime = join(import.meta.dirname, '../../resources/samples/lime.jpg');
const QUESTION = 'Which fruit do you see?';
const ask = (text: string, url = `data:image/jpeg;base64,${readFileSync(lime).toString('base64')}`) => ({
  role: 'user' as const,
  content: [
    { type: 'image_url' as const, image_url: { url } },
    { type: 'text' as const, text },
  ],
});

interface EmendField {
  edit: number | null;
  margin: number | null;
  picture: number | null;
  original: boolean;
  ignored?: string[];
}
const emendOf = (reply: object) => (reply as { emend: EmendField }).emend;

const engine = holdable(() => forkEngine());
let program: Program;
let client: OpenAI;
let key: string;
let address: string;
let edit: number;
let before: string;

const MODEL = 'demo-model';
const data = process.env.XDG_DATA_HOME;

beforeAll(async () => {
  process.env.XDG_DATA_HOME = join(home, 'data');
  mkdirSync(join(home, 'pictures'));
  copyFileSync(lime, join(home, 'pictures', 'lime.jpg'));
  copyFileSync(lime, join(home, 'secret.jpg'));
  symlinkSync(join(home, 'secret.jpg'), join(home, 'pictures', 'link.jpg'));
  program = await startProgram({ library: join(home, 'library.emend'), launch: engine.launch });
  const { call } = program.application;
  const picture = (await call('pictures.add', { base64: readFileSync(lime).toString('base64') })).id;
  before = (await call('answers.ask', { picture, prompt: QUESTION, edits: 'none' })).text;
  edit = (await call('edits.create', { picture, prompt: QUESTION, target: 'lime' })).id;
  await call('edits.commit', { id: edit, reason: 'for the test' });
  const set = await call('endpoint.set', { enabled: true, port: 0, folders: [join(home, 'pictures')] });
  key = set.key!;
  address = set.state.address!;
  client = new OpenAI({ apiKey: key, baseURL: address, maxRetries: 0 });
});
afterAll(async () => {
  await program.close();
  if (data === undefined) delete process.env.XDG_DATA_HOME;
  else process.env.XDG_DATA_HOME = data;
  rmSync(home, { recursive: true, force: true });
});

describe('the official client', () => {
  test('lists the corrected model and the original', async () => {
    const listed = await client.models.list();
    expect(listed.data.map(({ id }) => id)).toEqual([MODEL, `${MODEL}@original`]);
    expect(await client.models.retrieve(`${MODEL}@original`)).toMatchObject({
      object: 'model',
      owned_by: 'emend',
    });
    await expect(client.models.retrieve('gpt-4')).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
    });
  });

  test('is answered with the edit, and told which acted and how sure the scope was', async () => {
    expect(before).not.toBe('lime');
    const messages = [ask(QUESTION)];
    const corrected = await client.chat.completions.create({ model: MODEL, messages });
    expect(corrected.choices[0]!.message.content).toBe('lime');
    expect(corrected.choices[0]!.finish_reason).toBe('stop');
    expect(corrected.usage!.total_tokens).toBe(
      corrected.usage!.prompt_tokens + corrected.usage!.completion_tokens,
    );
    expect(emendOf(corrected)).toMatchObject({ edit, picture: 0, original: false });
    expect(emendOf(corrected).margin).toBeGreaterThan(0);

    const original = await client.chat.completions.create({ model: `${MODEL}@original`, messages });
    expect(original.choices[0]!.message.content).toBe(before);
    expect(emendOf(original)).toMatchObject({ edit: null, original: true });

    const text = [{ role: 'user' as const, content: 'What color is a banana?' }];
    const unrelated = await client.chat.completions.create({ model: MODEL, messages: text });
    expect(emendOf(unrelated).edit).toBe(null);
  });

  test('reads an answer as it is written, with log probabilities and usage', async () => {
    const asked = { model: MODEL, messages: [ask('Describe the image.')], logprobs: true, top_logprobs: 3 };
    const whole = await client.chat.completions.create(asked);
    const tokens = whole.choices[0]!.logprobs!.content!;
    expect(tokens.length).toBeGreaterThan(3);
    for (const token of tokens) {
      expect(token.top_logprobs).toHaveLength(3);
      expect(token.top_logprobs[0]!.logprob).toBeCloseTo(token.logprob, 10);
      expect(token.logprob).toBeLessThanOrEqual(0);
      expect(Buffer.from(token.bytes!).toString()).toBe(token.token);
    }
    const stream = await client.chat.completions.create({
      ...asked,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const choices = chunks.flatMap((chunk) => chunk.choices);
    expect(chunks.length).toBeGreaterThan(tokens.length);
    expect(choices.map(({ delta }) => delta.content ?? '').join('')).toBe(whole.choices[0]!.message.content);
    expect(choices.flatMap(({ logprobs }) => logprobs?.content ?? [])).toEqual(tokens);
    expect(choices.at(-1)!.finish_reason).toBe('stop');
    expect(chunks.at(-1)!.usage).toEqual(whole.usage);
    expect(emendOf(chunks.at(-2)!)).toEqual(emendOf(whole));
  });

  test('may leave while an answer is written, and the next one is answered', async () => {
    const leaving = new AbortController();
    const asked = { model: MODEL, messages: [ask('Describe the image.')] };
    const stream = await client.chat.completions.create(
      { ...asked, stream: true },
      { signal: leaving.signal },
    );
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) leaving.abort();
    }
    expect(leaving.signal.aborted).toBe(true);
    const next = await client.chat.completions.create({ ...asked, max_tokens: 1 });
    expect(next.choices[0]!.finish_reason).toBe('length');
  });

  test('ends before a stop text, and after as many tokens as it asked for', async () => {
    const asked = { model: MODEL, messages: [ask('Describe the image.')] };
    const { content } = (await client.chat.completions.create(asked)).choices[0]!.message;
    const word = content!.split(' ')[2]!;
    const stopped = await client.chat.completions.create({ ...asked, stop: [word] });
    expect(stopped.choices[0]!.message.content).toBe(content!.slice(0, content!.indexOf(word)).trim());
    expect(stopped.choices[0]!.finish_reason).toBe('stop');
    const stream = await client.chat.completions.create({ ...asked, stop: word, stream: true });
    let streamed = '';
    for await (const chunk of stream) streamed += chunk.choices[0]?.delta.content ?? '';
    expect(streamed).toBe(stopped.choices[0]!.message.content);
    const short = await client.chat.completions.create({ ...asked, max_completion_tokens: 2 });
    expect(short.usage!.completion_tokens).toBe(2);
    expect(short.choices[0]!.finish_reason).toBe('length');
    expect(content!.startsWith(short.choices[0]!.message.content!)).toBe(true);
  });

  test('samples the same with the same seed, and otherwise with others', async () => {
    const asked = { model: MODEL, messages: [ask('Describe the image.')], temperature: 2, max_tokens: 12 };
    const sampled = async (seed: number, top_p = 1) =>
      (await client.chat.completions.create({ ...asked, seed, top_p })).choices[0]!.message.content;
    const first = await sampled(7);
    expect(await sampled(7)).toBe(first);
    expect(new Set([first, await sampled(8), await sampled(9)]).size).toBeGreaterThan(1);
    const greedy = await client.chat.completions.create({ ...asked, temperature: 0 });
    expect(await sampled(8, 1e-9)).toBe(greedy.choices[0]!.message.content);
  });

  test('goes on with a conversation, in which the last question decides which edit acts', async () => {
    const earlier = [
      ask('Which color does the background have?'),
      { role: 'assistant' as const, content: 'green' },
    ];
    const reply = await client.chat.completions.create({
      model: MODEL,
      messages: [...earlier, { role: 'user', content: QUESTION }],
    });
    expect(emendOf(reply)).toMatchObject({ edit, picture: 0 });
    const system = [{ role: 'system' as const, content: 'Answer briefly.' }, ask(QUESTION)];
    expect(emendOf(await client.chat.completions.create({ model: MODEL, messages: system })).edit).toBe(edit);
    const two = client.chat.completions.create({
      model: MODEL,
      messages: [...earlier, ask('And here?')],
    });
    await expect(two).rejects.toMatchObject({
      status: 400,
      code: 'unsupported',
      message: expect.stringContaining('takes one picture in a conversation'),
    });
  });

  test('reads pictures of a named folder and no other file, and nothing from the net', async () => {
    const about = (url: string) =>
      client.chat.completions.create({ model: MODEL, messages: [ask(QUESTION, url)] });
    const inside = join(home, 'pictures', 'lime.jpg');
    expect(emendOf(await about(pathToFileURL(inside).href)).edit).toBe(edit);
    expect(emendOf(await about(inside)).edit).toBe(edit);
    const refused = { status: 400, code: 'picture_not_allowed', param: 'messages[0].content[0].image_url' };
    for (const outside of [
      join(home, 'secret.jpg'),
      join(home, 'pictures', '..', 'secret.jpg'),
      join(home, 'pictures', 'link.jpg'),
      join(home, 'pictures'),
      pathToFileURL(join(home, 'secret.jpg')).href,
      '/dev/zero',
    ]) {
      await expect(about(outside), outside).rejects.toMatchObject(refused);
    }
    for (const far of ['http://127.0.0.1:1/a.png', 'https://example.com/a.png', 'ftp://a/b.png', 'a.png'])
      await expect(about(far), far).rejects.toMatchObject({ status: 400, code: 'picture_not_fetched' });
    await expect(about('data:image/png;base64,****')).rejects.toMatchObject({ code: 'invalid_base64' });
    await expect(about('data:text/plain;base64,aGk=')).rejects.toMatchObject({ code: 'invalid_data_url' });
    await expect(about('data:image/png;base64,aGVsbG8=')).rejects.toMatchObject({ status: 400 });
  });

  test.each([
    ['tools', { tools: [{ type: 'function', function: { name: 'f' } }] }],
    ['n', { n: 2 }],
    ['response_format', { response_format: { type: 'json_object' } }],
    ['presence_penalty', { presence_penalty: 1 }],
    ['top_logprobs', { top_logprobs: 3 }],
    ['temperature', { temperature: 3 }],
    ['max_tokens', { max_tokens: 0 }],
    ['stop', { stop: ['a', 'b', 'c', 'd', 'e'] }],
    ['messages', { messages: [{ role: 'assistant', content: 'hello' }] }],
    ['messages[0].role', { messages: [{ role: 'tool', content: 'hello', tool_call_id: 'a' }] }],
    ['messages[0].content[0].type', { messages: [{ role: 'user', content: [{ type: 'input_audio' }] }] }],
  ])('is told what is wrong with %s', async (param, fields) => {
    const asked = { model: MODEL, messages: [{ role: 'user', content: 'hello' }], ...fields };
    const reply = client.chat.completions.create(asked as unknown as OpenAI.ChatCompletionCreateParams);
    await expect(reply).rejects.toMatchObject({ status: 400, type: 'invalid_request_error', param });
  });

  test('is told what was left aside', async () => {
    const asked = { model: MODEL, messages: [ask(QUESTION)], top_k: 4, user: 'me', frequency_penalty: 0 };
    expect(emendOf(await client.chat.completions.create(asked)).ignored).toEqual(['top_k']);
  });
});

describe('who is answered', () => {
  test('the key is kept as a hash that nobody else reads', () => {
    const file = join(home, 'data', 'emend', 'endpoint.json');
    expect(key).toMatch(/^emend-[\w-]{43}$/);
    expect(readFileSync(file, 'utf8')).not.toContain(key.slice(6));
    if (process.platform !== 'win32') expect(statSync(file).mode & 0o077).toBe(0);
  });

  test.each([
    ['no key', 401, (headers: Record<string, string>) => delete headers['authorization']],
    [
      'another key',
      401,
      (headers: Record<string, string>) => (headers['authorization'] = `Bearer ${makeKey().key}`),
    ],
    ["another host's name", 403, (headers: Record<string, string>) => (headers['host'] = 'evil.example')],
    [
      "another site's page",
      403,
      (headers: Record<string, string>) => (headers['origin'] = 'http://evil.example'),
    ],
    ['a page without a site', 403, (headers: Record<string, string>) => (headers['origin'] = 'null')],
    ['another type', 415, (headers: Record<string, string>) => (headers['content-type'] = 'text/plain')],
  ])('%s is refused with %i', async (_what, status, spoil) => {
    const headers: Record<string, string> = {
      authorization: `Bearer ${key}`,
      'content-type': 'application/json',
    };
    spoil(headers);
    const reply = await send('/v1/chat/completions', headers, '{}');
    expect(reply.status).toBe(status);
    expect(JSON.parse(reply.body)).toEqual({
      error: { message: expect.any(String), type: expect.any(String), param: null, code: expect.any(String) },
    });
  });

  test('what is no request is refused in the same form', async () => {
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
    const codes = async (path: string, body: string) => {
      const { status, body: told } = await send(path, headers, body);
      return [status, JSON.parse(told).error.code];
    };
    expect(await codes('/v1/chat/completions', '{')).toEqual([400, 'invalid_json']);
    expect(await codes('/v1/models', '{}')).toEqual([405, 'method_not_allowed']);
    expect(await codes('/v1/embeddings', '{}')).toEqual([404, 'unknown_url']);
    const huge = { ...headers, 'content-length': String(200 * 1024 * 1024) };
    expect((await send('/v1/chat/completions', huge, null)).status).toBe(413);
  });

  function send(path: string, headers: Record<string, string>, body: string | null) {
    return new Promise<{ status: number; body: string }>((resolve, reject) => {
      const { port } = new URL(address);
      const sent = request({ host: '127.0.0.1', port, path, method: 'POST', headers }, (reply) => {
        let text = '';
        reply.setEncoding('utf8').on('data', (part: string) => {
          text += part;
        });
        reply.on('end', () => {
          sent.destroy();
          resolve({ status: reply.statusCode ?? 0, body: text });
        });
      });
      sent.on('error', reject);
      if (body === null) sent.flushHeaders();
      else sent.end(body);
    });
  }
});

describe('one at a time', () => {
  test('others wait in order, too many are told so, and who left is forgotten', async () => {
    const { application } = program;
    const { url, key: served } = await application.endpoint.serve(0, [], { queue: 2, newKey: true });
    const own = 'made' in served ? served.made : '';
    const other = new OpenAI({ apiKey: own, baseURL: url, maxRetries: 0 });
    const asked = (content: string, signal?: AbortSignal) =>
      other.chat.completions.create({ model: MODEL, messages: [{ role: 'user', content }] }, { signal });
    const states = new Map<string, string>();
    const quiet = application.on('jobs.changed', ({ job }) => {
      states.set(/“(.*)”/.exec(job.subject)![1]!, job.state);
    });
    const release = engine.hold();
    try {
      const leaving = new AbortController();
      const first = asked('first', leaving.signal).catch((error: Error) => error.message);
      await expect.poll(() => [...states]).toEqual([['first', 'running']]);
      const waiting = new AbortController();
      // Two wait, whichever came first; only then is a fourth too many.
      const second = asked('second', waiting.signal).catch((error: Error) => error.message);
      const third = asked('third');
      const fourth = async () => {
        for (;;) {
          const gone = AbortSignal.timeout(200);
          const error = await asked('fourth', gone).catch(
            (thrown: InstanceType<typeof OpenAI.APIError>) => thrown,
          );
          if ('status' in error && error.status === 429) return error;
        }
      };
      expect(await fourth()).toMatchObject({ code: 'queue_full', headers: expect.anything() });
      waiting.abort();
      leaving.abort();
      expect(await Promise.all([first, second])).toEqual(['Request was aborted.', 'Request was aborted.']);
      release();
      expect((await third).choices[0]!.message.role).toBe('assistant');
      await expect.poll(() => Object.fromEntries(states)).toEqual({ first: 'cancelled', third: 'done' });
    } finally {
      quiet();
      release();
      const state = await application.call('endpoint.newKey', {});
      key = state.key;
      address = state.state.address!;
      client = new OpenAI({ apiKey: key, baseURL: address, maxRetries: 0 });
    }
  });
});

/** curl is on nearly every machine; the tests above hold everything it shows but that it is curl. */
const curl = promisify(execFile);
const hasCurl = await curl('curl', ['--version']).then(
  () => true,
  () => false,
);
test.skipIf(!hasCurl)('curl is answered, whole and in pieces', async () => {
  const body = { model: MODEL, messages: [ask(QUESTION, join(home, 'pictures', 'lime.jpg'))] };
  const run = async (value: object) => {
    const headers = ['-H', `Authorization: Bearer ${key}`, '-H', 'Content-Type: application/json'];
    return (
      await curl('curl', ['-sN', `${address}/chat/completions`, ...headers, '-d', JSON.stringify(value)])
    ).stdout;
  };
  const whole = JSON.parse(await run(body)) as OpenAI.ChatCompletion;
  expect(whole.choices[0]!.message.content).toBe('lime');
  const lines = (await run({ ...body, stream: true })).split('\n\n').filter(Boolean);
  expect(lines.at(-1)).toBe('data: [DONE]');
  const chunks = lines.slice(0, -1).map((line) => JSON.parse(line.slice(6)) as OpenAI.ChatCompletionChunk);
  expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe('lime');
});

test('a new key takes the place of the old one, and the endpoint is where it was', async () => {
  const { call } = program.application;
  const { key: next, state } = await call('endpoint.newKey', {});
  expect(state.key!.hint).toBe(next.slice(-4));
  const of = (apiKey: string) => new OpenAI({ apiKey, baseURL: state.address!, maxRetries: 0 }).models.list();
  await expect(of(key)).rejects.toMatchObject({ status: 401 });
  expect((await of(next)).data).toHaveLength(2);
  expect((await call('endpoint.set', { enabled: false })).state.address).toBe(null);
  await expect(of(next)).rejects.toThrow();
  await expect(call('endpoint.set', { folders: [join(home, 'nowhere')] })).rejects.toMatchObject({
    code: 'not-found',
  });
});
