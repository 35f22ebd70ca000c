/** @file The families there are. Growth is a folder beside this file and a line in this list. */
import type { Family } from '../family.ts';
import { llava } from './llava/llava.ts';

export const families: readonly Family[] = [llava as Family];
