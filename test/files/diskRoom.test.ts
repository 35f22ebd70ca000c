import { statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { expect, test } from 'vitest';
import { demandRoom } from '../../electron/files/diskRoom.ts';

test('what does not fit on the disk is refused with what it takes and what there is; what fits is not', async () => {
  const { bavail, bsize } = statfsSync(tmpdir());
  await demandRoom(tmpdir(), 1, 'The test');
  await expect(demandRoom(tmpdir(), 4 * bavail * bsize + 1e12, 'The test')).rejects.toMatchObject({
    code: 'conflict',
    message: expect.stringMatching(/^The test takes up to [\d.]+ GB in .* to spare\. Make room/),
  });
});
