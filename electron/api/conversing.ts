/** @file The next turn of a conversation, for whoever asks: a page by the pictures of the library, other programs by their bytes. */
import type { EngineOperations, EngineTurn } from '../engine/protocol.ts';
import { readSettings } from '../library/settings.ts';
import type { ChatAnswer } from './contract.ts';
import type { EngineCallOptions } from './engineClient.ts';
import { unlessAborted } from './jobs.ts';
import type { Parts } from './parts.ts';

export interface ConversationRequest {
  readonly turns: readonly EngineTurn[];
  readonly edits: 'none' | 'committed';
  readonly sampling: EngineOperations['chat']['input']['sampling'];
  /** absent: as the settings say */
  readonly maxNewTokens?: number | undefined;
  readonly stop: readonly string[];
  readonly alternatives: number;
  readonly share?: boolean;
}

/** @throws EmendError what the engine says of the turns, 'conflict' when no model is open, 'cancelled' */
export async function converse(
  { library, engine, session }: Pick<Parts, 'library' | 'engine' | 'session'>,
  { maxNewTokens, ...request }: ConversationRequest,
  options: EngineCallOptions & { readonly signal: AbortSignal },
): Promise<ChatAnswer> {
  const { edits } = request;
  await unlessAborted<unknown>(
    edits === 'committed' ? session.demandActing() : session.demandModel(),
    options.signal,
  );
  const limit = maxNewTokens ?? readSettings(library).maxNewTokens;
  return engine.call('chat', { ...request, maxNewTokens: limit }, options);
}
