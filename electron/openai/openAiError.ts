/** @file Errors in OpenAI's form, with their HTTP status. */
import { EmendError, type ErrorCode } from '../errors.ts';

/** What an error looks like to OpenAI's clients. */
export interface OpenAiErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

/** A request that is not answered. */
export class OpenAiError extends Error {
  readonly status: number;
  readonly type: string;
  readonly code: string | null;
  readonly param: string | null;

  constructor(status: number, message: string, code: string | null, param: string | null = null) {
    super(message);
    this.name = 'OpenAiError';
    this.status = status;
    this.type = typeOf(status);
    this.code = code;
    this.param = param;
  }

  get body(): OpenAiErrorBody {
    const { message, type, param, code } = this;
    return { error: { message, type, param, code } };
  }
}

function typeOf(status: number): string {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 429) return 'rate_limit_error';
  return status >= 500 ? 'server_error' : 'invalid_request_error';
}

/** Status of each kind of error; clients try 5xx, 409 and 429 again by themselves, so only what may pass has one of them. */
const statuses: Readonly<Record<ErrorCode, number>> = {
  'invalid-input': 400,
  'not-found': 400,
  damaged: 400,
  unsupported: 400,
  cancelled: 400,
  conflict: 503,
  engine: 503,
  internal: 500,
};

/** Whatever was thrown, as an error of this form. */
export function asOpenAiError(thrown: unknown): OpenAiError {
  if (thrown instanceof OpenAiError) return thrown;
  if (thrown instanceof EmendError) {
    return new OpenAiError(statuses[thrown.code], thrown.message, thrown.code.replaceAll('-', '_'));
  }
  const said = thrown instanceof Error ? thrown.message.split('\n')[0]! : String(thrown);
  return new OpenAiError(500, `Emend failed by a mistake of its own: ${said}`, 'internal');
}
