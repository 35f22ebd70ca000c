/**
 * @file Hands the page's state to the components below the application.
 */
import { getContext, setContext } from 'svelte';
import type { Application } from './application.svelte.ts';

const key = Symbol('application');

export function provideApplication(application: Application): void {
  setContext(key, application);
}

export function useApplication(): Application {
  return getContext<Application>(key);
}
