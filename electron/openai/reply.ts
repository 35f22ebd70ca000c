/** @file Answers in the form of OpenAI's chat completions, whole and in chunks, with what is Emend's own in the field `emend`. */
import type { AnswerToken, ChatAnswer } from '../api/contract.ts';

/** What every reply to one request begins with. */
export interface ReplyHead {
  readonly id: string;
  /** seconds since 1970 */
  readonly created: number;
  readonly model: string;
}

/** What Emend says of an answer beside it. */
export interface EmendField {
  /** the edit that acted; null when none did */
  readonly edit: number | null;
  /** of the best match, acting or not: log odds that the edit should act, from which score it does, and the difference */
  readonly closest: number | null;
  readonly score: number | null;
  readonly threshold: number | null;
  readonly margin: number | null;
  /** which of the request's pictures the edit acted on, from 0 */
  readonly picture: number | null;
  /** true: the unedited model was asked, so no edit was looked for */
  readonly original: boolean;
  readonly provider: string;
  /** fields of the request that were left aside */
  readonly ignored?: readonly string[];
}

export function emendField(answer: ChatAnswer, original: boolean, ignored: readonly string[]): EmendField {
  const { routing, picture, provider } = answer;
  return {
    edit: routing?.edit ?? null,
    closest: routing?.closest ?? null,
    score: routing?.score ?? null,
    threshold: routing?.threshold ?? null,
    margin: routing?.margin ?? null,
    picture,
    original,
    provider,
    ...(ignored.length > 0 && { ignored }),
  };
}

/** @param topLogprobs null: without log probabilities */
export function completion(
  head: ReplyHead,
  answer: ChatAnswer,
  topLogprobs: number | null,
  emend: EmendField,
): object {
  const content = answer.tokens
    .slice(0, writtenTokens(answer))
    .map((token) => tokenLogprob(token, topLogprobs ?? 0));
  return {
    ...{ id: head.id, object: 'chat.completion', created: head.created, model: head.model },
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: answer.text, refusal: null },
        logprobs: topLogprobs === null ? null : { content, refusal: null },
        finish_reason: finishReason(answer),
      },
    ],
    usage: usage(answer),
    emend,
  };
}

export function chunk(
  head: ReplyHead,
  delta: { role?: 'assistant'; content?: string },
  rest: {
    tokens?: readonly AnswerToken[];
    topLogprobs?: number | null;
    answer?: ChatAnswer;
    emend?: EmendField;
  } = {},
): object {
  const { tokens = [], topLogprobs = null, answer, emend } = rest;
  const content = tokens.map((token) => tokenLogprob(token, topLogprobs ?? 0));
  return {
    ...{ id: head.id, object: 'chat.completion.chunk', created: head.created, model: head.model },
    choices: [
      {
        index: 0,
        delta,
        logprobs: topLogprobs === null || tokens.length === 0 ? null : { content, refusal: null },
        finish_reason: answer ? finishReason(answer) : null,
      },
    ],
    ...(emend && { emend }),
  };
}

/** The last chunk where usage was asked for: no choices, only numbers. */
export function usageChunk(head: ReplyHead, answer: ChatAnswer): object {
  return {
    ...{ id: head.id, object: 'chat.completion.chunk', created: head.created, model: head.model },
    choices: [],
    usage: usage(answer),
  };
}

const finishReason = ({ ended }: ChatAnswer) => (ended === 'length' ? 'length' : 'stop');

/** Tokens without the one that ended the answer. */
const writtenTokens = ({ tokens, ended }: ChatAnswer) => tokens.length - (ended === 'stop-token' ? 1 : 0);

function usage(answer: ChatAnswer): object {
  const { promptTokens, tokens } = answer;
  return {
    prompt_tokens: promptTokens,
    completion_tokens: tokens.length,
    total_tokens: promptTokens + tokens.length,
  };
}

function tokenLogprob(token: AnswerToken, top: number): object {
  const one = ({ text, probability }: { text: string; probability: number }) => ({
    token: text,
    // JSON has no minus infinity; OpenAI writes this number for what is all but impossible.
    logprob: probability > 0 ? Math.log(probability) : -9999,
    bytes: [...Buffer.from(text, 'utf8')],
  });
  return { ...one(token), top_logprobs: token.alternatives.slice(0, top).map(one) };
}
