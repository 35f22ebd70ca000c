/**
 * @file Calls about the endpoint for other programs, and what answers there: the open model, as jobs everyone sees.
 */
import { randomUUID } from 'node:crypto';
import type { Endpoint } from '../../openai/endpoint.ts';
import type { ChatService } from '../../openai/server.ts';
import { converse } from '../conversing.ts';
import type { Parts } from '../parts.ts';
import type { HandlersOf } from '../router.ts';
import { typedPath } from '../typedPath.ts';

export function endpointHandlers(endpoint: Endpoint): HandlersOf<'endpoint'> {
  return {
    'endpoint.state': () => endpoint.state(),
    'endpoint.set': ({ folders, ...changes }) =>
      endpoint.set({ ...changes, folders: folders?.map((folder) => typedPath(folder)) }),
    'endpoint.newKey': () => endpoint.newKey(),
  };
}

/** The open model behind the endpoint. */
export function chatService(parts: Pick<Parts, 'library' | 'engine' | 'session' | 'jobs'>): ChatService {
  const { session, jobs } = parts;
  return {
    model: async () => ({ name: (await session.demandModel()).name, opened: session.opened }),
    chat: async (request, signal, onToken) => {
      const id = randomUUID();
      const asked = request.turns.at(-1)?.text ?? '';
      const subject = `“${asked.length > 80 ? `${asked.slice(0, 79)}…` : asked}”, asked by another program`;
      const stop = () => jobs.cancel(id);
      signal.addEventListener('abort', stop, { once: true });
      try {
        return await jobs.run(
          id,
          { kind: 'answers.chat', subject, edit: null, engine: 'shared', quick: false },
          (ended) =>
            converse(parts, request, {
              signal: AbortSignal.any([ended, signal]),
              onStream: (message) => {
                if (message.kind === 'token') onToken(message.token, message.text);
              },
            }),
        );
      } finally {
        signal.removeEventListener('abort', stop);
      }
    },
  };
}
