/**
 * @file Training in an engine process. It has a process to itself and gives way to others, so that asking stays quick meanwhile.
 */
import { setPriority } from 'node:os';
import { finishTraining, runTraining, type TrainingHooks } from '../evaluation/trainingRun.ts';
import type { PackedCache } from '../models/packed/cache.ts';
import type { OperationContext, OperationTable } from './protocol.ts';

/** Nice value of a process that trains: anything a person waits for goes first. */
const BEHIND_OTHERS = 10;

function hooksOf({ signal, send }: OperationContext, packed: PackedCache): TrainingHooks {
  return {
    ...{ signal, packed },
    progress: (stage, done, total, unit) => send({ kind: 'progress', stage, done, total, unit }),
    onPoint: (point) => send({ kind: 'training', point }),
    onValidation: (validation) => send({ kind: 'validation', validation }),
  };
}

export const trainingOperations: Pick<OperationTable, 'train' | 'keepTrained'> = {
  async train({ request, folder, out, packed, pictureCache }, context) {
    setPriority(BEHIND_OTHERS);
    await runTraining(request, folder, out, { ...hooksOf(context, packed), pictureCache });
    return null;
  },
  async keepTrained({ folder, out, packed }, context) {
    await finishTraining(folder, out, hooksOf(context, packed));
    return null;
  },
};
