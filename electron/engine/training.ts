/**
 * @file Training in an engine process. It has a process to itself and gives way to others, so that asking stays quick meanwhile.
 */
import { setPriority } from 'node:os';
import { finishTraining, runTraining, type TrainingHooks } from '../evaluation/trainingRun.ts';
import type { OperationContext, OperationTable, TrainingFolders } from './protocol.ts';

/** Nice value of a process that trains: anything a person waits for goes first. */
const BEHIND_OTHERS = 10;

function hooksOf(
  { signal, send }: OperationContext,
  { packed, pictureCache }: TrainingFolders,
): TrainingHooks {
  return {
    ...{ signal, packed, pictureCache },
    progress: (stage, done, total, unit) => send({ kind: 'progress', stage, done, total, unit }),
    onPoint: (point) => send({ kind: 'training', point }),
    onValidation: (validation) => send({ kind: 'validation', validation }),
  };
}

export const trainingOperations: Pick<OperationTable, 'train' | 'keepTrained'> = {
  async train({ request, ...folders }, context) {
    setPriority(BEHIND_OTHERS);
    await runTraining(request, folders.folder, folders.out, hooksOf(context, folders));
    return null;
  },
  async keepTrained(folders, context) {
    await finishTraining(folders.folder, folders.out, hooksOf(context, folders));
    return null;
  },
};
