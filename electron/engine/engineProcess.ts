/** @file Entry of the engine process: the one process that loads models. */
import { operations, release } from './operations.ts';
import { runEngineProcess } from './processLife.ts';

runEngineProcess(operations, release);
