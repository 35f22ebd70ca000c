/**
 * @file KE as the registry lists it: how its adapter folders are opened and made.
 */
import { readAdapterFiles } from '../adapterFiles.ts';
import type { EditorKind, UnopenedEditor } from '../editor.ts';
import { cutBelow } from '../weightEditor.ts';
import { Ke, KeDescription, keWeights } from './ke.ts';
import { keTraining } from './trainKe.ts';

export const ke: EditorKind = {
  name: 'KE',
  acts: 'weights of MLPs, by what a hyper-network makes of the edit’s text and gradient',
  byConstruction: {},
  training: keTraining,
  trainedScope: 'everywhere',
  async read(folder, { backbone }): Promise<UnopenedEditor> {
    const { description, weights, fingerprint, path } = await readAdapterFiles(folder, KeDescription);
    const { name, model, router, layers } = description;
    return {
      weights: description.weights,
      ...{ editor: ke, folder: true, name, model, fingerprint, router, settings: null },
      scope: ke.trainedScope!,
      cuts: cutBelow(Math.min(...layers)),
      changeable: keWeights(description, backbone.decoder).map((one) => one.name),
      open: async (opened) => new Ke(opened, description, weights, path),
    };
  },
};
