/**
 * @file MEND as the registry lists it: how its adapter folders are opened and made.
 */
import { readAdapterFiles } from '../adapterFiles.ts';
import type { EditorKind, UnopenedEditor } from '../editor.ts';
import { cutBelow } from '../weightEditor.ts';
import { Mend, MendDescription, mendModules } from './mend.ts';
import { mendTraining } from './trainMend.ts';

export const mend: EditorKind = {
  name: 'MEND',
  acts: 'weights of several layers’ MLPs, by what networks make of the edit’s gradient',
  byConstruction: {},
  training: mendTraining,
  trainedScope: 'everywhere',
  async read(folder, { backbone }): Promise<UnopenedEditor> {
    const { description, weights, fingerprint, path } = await readAdapterFiles(folder, MendDescription);
    const { name, model, router, layers } = description;
    return {
      weights: description.weights,
      ...{
        editor: mend,
        folder: true,
        name,
        model,
        fingerprint,
        router,
        settings: null,
        scope: mend.trainedScope!,
      },
      cuts: cutBelow(Math.min(...layers)),
      changeable: mendModules(description, backbone.decoder).map((module) => module.name),
      open: async (opened) => new Mend(opened, description, weights, path),
    };
  },
};
