/** @file What a chat completion request asks, checked, in our own terms. */
import { z } from 'zod';
import { OpenAiError } from './openAiError.ts';

/** Bounds of one request. */
const MOST_MESSAGES = 400;
const LONGEST_TEXT = 100_000;
export const MOST_PICTURES = 16;
/** An answer has at most so many tokens, whatever is asked for. */
const MOST_TOKENS = 100_000;

const text = z.string().max(LONGEST_TEXT);
const textPart = z.looseObject({ type: z.literal('text'), text });
const picturePart = z.looseObject({
  type: z.literal('image_url'),
  image_url: z.union([
    z.looseObject({ url: z.string().min(1), detail: z.enum(['auto', 'low', 'high']).nullish() }),
    z
      .string()
      .min(1)
      .transform((url) => ({ url })),
  ]),
});

const Message = z.discriminatedUnion('role', [
  z.looseObject({
    role: z.enum(['system', 'developer']),
    content: z.union([text, z.array(textPart).min(1).max(64)]),
  }),
  z.looseObject({
    role: z.literal('user'),
    content: z.union([
      text,
      z
        .array(z.discriminatedUnion('type', [textPart, picturePart]))
        .min(1)
        .max(64),
    ]),
  }),
  z.looseObject({
    role: z.literal('assistant'),
    content: z.union([text, z.array(textPart).min(1).max(64)]),
  }),
]);

const wholeNumber = z.number().int();
const Request = z.looseObject({
  model: z.string().min(1).max(1000),
  messages: z.array(Message).min(1).max(MOST_MESSAGES),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: wholeNumber.min(1).nullish(),
  max_completion_tokens: wholeNumber.min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  seed: wholeNumber.nullish(),
  stop: z.union([z.string().min(1).max(400), z.array(z.string().min(1).max(400)).max(4)]).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: wholeNumber.min(0).max(20).nullish(),
});

/** Fields that change nothing here. */
const harmless = new Set([
  'user',
  'store',
  'metadata',
  'service_tier',
  'safety_identifier',
  'prompt_cache_key',
]);
/** Fields that would change the answer and are not done, with the values that ask for nothing. */
const notDone: Readonly<Record<string, (value: unknown) => boolean>> = {
  n: (value) => value === 1,
  tools: isEmpty,
  functions: isEmpty,
  tool_choice: (value) => value === 'none' || value === 'auto',
  function_call: (value) => value === 'none' || value === 'auto',
  response_format: (value) => (value as { type?: unknown })?.type === 'text',
  modalities: (value) => Array.isArray(value) && value.length === 1 && value[0] === 'text',
  audio: () => false,
  prediction: () => false,
  web_search_options: () => false,
  logit_bias: isEmpty,
  presence_penalty: (value) => value === 0,
  frequency_penalty: (value) => value === 0,
};

function isEmpty(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly text: string;
  /** addresses, with where they stood in the request */
  readonly pictures: ReadonlyArray<{ readonly url: string; readonly param: string }>;
}

export interface ChatQuestion {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** null: as the app's settings say */
  readonly maxNewTokens: number | null;
  /** null: greedy, as edits are checked */
  readonly sampling: { readonly temperature: number; readonly topP: number; readonly seed: number } | null;
  readonly stop: readonly string[];
  /** likeliest tokens told for each token; null: none, and no log probabilities */
  readonly topLogprobs: number | null;
  /** fields of the request that are not known and were left aside */
  readonly ignored: readonly string[];
}

/**
 * @param body parsed JSON
 * @throws OpenAiError 400, naming the field
 */
export function readChatRequest(body: unknown): ChatQuestion {
  const parsed = Request.safeParse(body);
  if (!parsed.success) throw fieldError(parsed.error);
  const request = parsed.data;
  for (const [field, asksNothing] of Object.entries(notDone)) {
    const value = request[field];
    if (value === undefined || value === null || asksNothing(value)) continue;
    throw new OpenAiError(400, `Emend does not do "${field}". Leave it out.`, 'unsupported_parameter', field);
  }
  const { top_logprobs: top, logprobs } = request;
  if (top != null && !logprobs)
    throw new OpenAiError(400, '"top_logprobs" goes with "logprobs": true.', 'invalid_value', 'top_logprobs');
  const messages = request.messages.map((message, index) => readMessage(message, `messages[${index}]`));
  const pictures = messages.reduce((sum, message) => sum + message.pictures.length, 0);
  if (pictures > MOST_PICTURES) {
    throw new OpenAiError(
      400,
      `A request holds at most ${MOST_PICTURES} pictures; this one has ${pictures}.`,
      'too_many_pictures',
      'messages',
    );
  }
  const last = messages.at(-1)!;
  if (last.role !== 'user' || last.text.trim() === '') {
    throw new OpenAiError(
      400,
      'The last message must be the user’s, and ask something.',
      'invalid_value',
      'messages',
    );
  }
  const limit = request.max_completion_tokens ?? request.max_tokens ?? null;
  const { temperature, top_p: topP, seed, stop } = request;
  return {
    model: request.model,
    messages,
    stream: request.stream ?? false,
    includeUsage: request.stream_options?.include_usage ?? false,
    maxNewTokens: limit === null ? null : Math.min(limit, MOST_TOKENS),
    sampling: temperature
      ? { temperature, topP: topP ?? 1, seed: seed ?? Math.floor(Math.random() * 2 ** 32) }
      : null,
    stop: typeof stop === 'string' ? [stop] : (stop ?? []),
    topLogprobs: logprobs ? (top ?? 0) : null,
    ignored: Object.keys(request).filter(
      (field) => !(field in Request.shape) && !(field in notDone) && !harmless.has(field),
    ),
  };
}

function readMessage(message: z.output<typeof Message>, param: string): ChatMessage {
  const { content } = message;
  const role = message.role === 'developer' ? 'system' : message.role;
  if (typeof content === 'string') return { role, text: content.trim(), pictures: [] };
  const texts: string[] = [];
  const pictures: Array<{ url: string; param: string }> = [];
  for (const [index, part] of content.entries()) {
    if (part.type === 'text') texts.push(part.text);
    else pictures.push({ url: part.image_url.url, param: `${param}.content[${index}].image_url` });
  }
  return { role, text: texts.join('\n').trim(), pictures };
}

function fieldError(error: z.ZodError): OpenAiError {
  const issue = deepest(error.issues[0]!);
  const param = issue.path.reduce<string>(
    (path, part) =>
      typeof part === 'number' ? `${path}[${part}]` : path ? `${path}.${String(part)}` : String(part),
    '',
  );
  return new OpenAiError(
    400,
    param ? `"${param}": ${issue.message}.` : `${issue.message}.`,
    'invalid_value',
    param || null,
  );
}

/** The issue of a union's member that came furthest. */
function deepest(issue: z.core.$ZodIssue): { path: PropertyKey[]; message: string } {
  if (issue.code !== 'invalid_union') return issue;
  const within = issue.errors.flat().toSorted((one, other) => other.path.length - one.path.length)[0];
  if (!within) return issue;
  const found = deepest(within);
  return { path: [...issue.path, ...found.path], message: found.message };
}
