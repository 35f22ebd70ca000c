import { expect, test, vi } from 'vitest';
import { serveOperations } from '../../electron/engine/jobs.ts';
import type { FromEngine, OperationTable } from '../../electron/engine/protocol.ts';

/** A line to the engine whose other end is this test. */
function line() {
  const sent: FromEngine[] = [];
  let deliver: (message: unknown) => void = () => {};
  return {
    sent,
    deliver: (message: unknown) => deliver(message),
    port: {
      send: (message: FromEngine) => void sent.push(message),
      onMessage: (listener: (message: unknown) => void) => {
        deliver = listener;
      },
      onClose: () => {},
    },
  };
}

const inspected = async () => ({ summary: null, tensors: [] });
const operations = { inspect: inspected } as unknown as OperationTable;

test.each([
  ['no object', 'hello', []],
  ['no number', { kind: 'call', name: 'inspect', input: {} }, []],
  ['unknown kind', { kind: 'eval', id: 1 }, [{ id: 1, error: { code: 'internal' } }]],
  [
    'unknown operation',
    { kind: 'call', id: 2, name: 'toString', input: {} },
    [{ id: 2, error: { code: 'internal' } }],
  ],
  [
    'too large',
    { kind: 'call', id: 3, name: 'inspect', input: { path: 'x'.repeat(600) } },
    [{ id: 3, error: { code: 'invalid-input' } }],
  ],
])('refuses a message with %s and goes on', async (_what, message, answers) => {
  const { sent, deliver, port } = line();
  serveOperations(port, operations, { onStop: () => {}, messageLimit: 1000 });
  deliver(message);
  expect(sent).toMatchObject(answers);
  deliver({ kind: 'call', id: 9, name: 'inspect', input: { path: 'x' } });
  await vi.waitFor(() => expect(sent.at(-1)).toMatchObject({ kind: 'result', id: 9 }));
});
