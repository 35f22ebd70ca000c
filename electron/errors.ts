/**
 * @file The one error type people read. Lowest layer: everything may use it, it uses nothing.
 */

/** What kind of thing went wrong; the page and the command line choose their wording of next steps by it. */
export type ErrorCode =
  /** the caller's input is not acceptable as it stands */
  | 'invalid-input'
  /** a file or folder is missing or unreadable */
  | 'not-found'
  /** a file is there and is damaged, truncated or not what its name says */
  | 'damaged'
  /** well-formed, and something Emend does not do */
  | 'unsupported'
  /** the person stopped it */
  | 'cancelled'
  /** the library's state does not allow it (stale check, unknown edit, already committed) */
  | 'conflict'
  /** the engine process ended or could not start */
  | 'engine'
  /** a mistake of ours */
  | 'internal';

/** Characters of a message. What people typed and what files are called may be long; what to do stands at the end. */
const LONGEST = 1000;
const END_KEPT = 300;

function bounded(message: string): string {
  if (message.length <= LONGEST) return message;
  return `${message.slice(0, LONGEST - END_KEPT - 3)} … ${message.slice(-END_KEPT)}`;
}

/**
 * An error a person can act on. `message` says what was wrong, where, and what to do.
 * A message that is too long loses its middle. It crosses process boundaries as `{ code, message }`, never as a stack trace.
 */
export class EmendError extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(bounded(message), options);
    this.name = 'EmendError';
    this.code = code;
  }
}
