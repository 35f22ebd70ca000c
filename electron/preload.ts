/** @file The one door between the sandboxed page and the main process: the contract's calls and events, and what of files the page needs. */
import { contextBridge, type IpcRendererEvent, ipcRenderer, webUtils } from 'electron';
import type { Backend, EventName, WireError } from './api/contract.ts';

/** How the main process answers; an error thrown through Electron would lose its code. */
type Reply<T> = { readonly output: T } | { readonly error: WireError };

export interface DesktopBridge extends Backend {
  /** The system's dialog; null when the person closed it. */
  chooseFolder(): Promise<string | null>;
  /** Where a file lies that the person dropped on the page or chose; empty for one that lies nowhere. */
  pathOf(file: File): string;
}

const bridge: DesktopBridge = {
  call: async (name, input, options) => {
    const reply: Reply<never> = await ipcRenderer.invoke('emend:call', name, input, options?.job);
    if ('error' in reply) throw reply.error;
    return reply.output;
  },
  on: (name, listener) => {
    const hear = (_event: IpcRendererEvent, event: { name: EventName; payload: never }): void => {
      if (event.name === name) listener(event.payload);
    };
    ipcRenderer.on('emend:event', hear);
    return () => void ipcRenderer.off('emend:event', hear);
  },
  chooseFolder: () => ipcRenderer.invoke('emend:choose-folder'),
  pathOf: (file) => webUtils.getPathForFile(file),
};

contextBridge.exposeInMainWorld('emend', bridge);
