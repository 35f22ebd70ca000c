/**
 * @file Dark or light: the setting, or the system's choice where the setting leaves it to the system.
 */
import type { Settings } from '../../electron/api/contract.ts';

const remembered = 'emend.theme'; // so that the next start does not flash in the wrong one
const systemIsDark = matchMedia('(prefers-color-scheme: dark)');
let chosen: Settings['theme'] = fromMemory();

systemIsDark.addEventListener('change', show);
show();

/** Shows the page in a theme from now on. */
export function setTheme(theme: Settings['theme']): void {
  chosen = theme;
  localStorage.setItem(remembered, theme);
  show();
}

function show(): void {
  const dark = chosen === 'dark' || (chosen === 'system' && systemIsDark.matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
}

function fromMemory(): Settings['theme'] {
  const theme = localStorage.getItem(remembered);
  return theme === 'dark' || theme === 'light' ? theme : 'system';
}
