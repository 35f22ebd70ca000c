/** @file Entry of the engine process: the one process that loads models. */
import { operations } from './operations.ts';
import { runEngineProcess } from './processLife.ts';

runEngineProcess(operations);
