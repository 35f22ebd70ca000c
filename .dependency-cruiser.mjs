/**
 * @file The one direction of imports: a folder of electron/ imports only folders further down this list. Types count too.
 * Errors, and the contract's types, belong to everyone.
 */
const folders = [
  'api',
  'openai',
  'engine',
  'library',
  'evaluation',
  'editors',
  'attribution',
  'training',
  'models',
  'tensor',
  'files',
];
const shells =
  '^electron/(main|preload|serve|start|build|cli|utilityEngine)\\.ts$|^electron/(cli|frontends)/';

/** Folder `index` must not reach what stands above it, the shells included. */
const downward = folders.map((folder, index) => ({
  name: `${folder}-imports-downward`,
  severity: 'error',
  from: { path: `^electron/${folder}/` },
  to: {
    path: [shells, '^electron/demo/', ...folders.slice(0, index).map((above) => `^electron/${above}/`)],
    pathNot: '^electron/api/contract\\.ts$',
  },
}));

/** Only `from` may import the package `to`. */
const owned = (name, to, from) => ({
  name,
  severity: 'error',
  from: { path: '^(electron|renderer)/', pathNot: from },
  to: { path: to },
});

export default {
  forbidden: [
    {
      name: 'no-circles',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    { name: 'all-imports-exist', severity: 'error', from: {}, to: { couldNotResolve: true } },
    ...downward,
    {
      name: 'errors-and-contract-import-nothing-of-ours',
      severity: 'error',
      from: { path: '^electron/(errors|api/contract)\\.ts$' },
      to: { path: '^(electron|renderer)/' },
    },
    {
      name: 'demo-is-a-program-of-its-own',
      severity: 'error',
      from: { path: '^electron/', pathNot: '^electron/(demo|cli)/' },
      to: { path: '^electron/demo/' },
    },
    {
      name: 'page-knows-only-the-contract',
      severity: 'error',
      from: { path: '^renderer/' },
      to: { path: '^electron/', pathNot: '^electron/(errors|api/contract)\\.ts$' },
    },
    {
      name: 'page-runs-without-node',
      severity: 'error',
      from: { path: '^renderer/' },
      to: { dependencyTypes: ['core'] },
    },
    owned(
      'electron-in-three-files',
      'node_modules/electron/',
      '^electron/(main|preload|utilityEngine|start)\\.ts$',
    ),
    owned('onnx-in-tensor', 'node_modules/onnxruntime-', '^electron/tensor/'),
    owned('sql-in-library', 'node_modules/better-sqlite3/', '^electron/library/'),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^(dist|out)/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'types', 'node', 'default'],
    },
  },
};
