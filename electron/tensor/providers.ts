/** @file What each execution provider is on this machine: whether it runs, why not, and what would fetch what it lacks. */
import { existsSync } from 'node:fs';
import { EmendError } from '../errors.ts';
import * as f from './functions.ts';
import { Graph } from './graph.ts';
import { availableProviders, float32, floatsOf, type Provider, providerNames, Session } from './session.ts';

export interface ExaminedProvider {
  readonly provider: Provider;
  /** a product was computed on it just now */
  readonly runs: boolean;
  /** what it is, or why it does not run */
  readonly said: string;
  /** a command that fetches what is missing; null where nothing can be fetched */
  readonly command: string | null;
}

const platforms: Readonly<Record<Provider, { readonly where: string; readonly fits: () => boolean }>> = {
  cuda: { where: 'Linux on x64', fits: () => process.platform === 'linux' && process.arch === 'x64' },
  dml: { where: 'Windows', fits: () => process.platform === 'win32' },
  coreml: { where: 'macOS', fits: () => process.platform === 'darwin' },
  webgpu: { where: 'desktop systems', fits: () => true },
  cpu: { where: 'every machine', fits: () => true },
};

const named: Readonly<Record<Provider, string>> = {
  cuda: 'NVIDIA cards',
  dml: 'DirectX 12 cards',
  coreml: 'Apple’s graphics and neural processors',
  webgpu: 'graphics cards through Vulkan, Metal or Direct3D',
  cpu: 'the processor',
};

/** CUDA's libraries are no part of the npm package; its own install script fetches them. */
const FETCH_CUDA = 'node node_modules/onnxruntime-node/script/install.js --onnxruntime-node-install=cuda12';

/** Tries every provider with a small product. */
export async function examineProviders(): Promise<ExaminedProvider[]> {
  const there = availableProviders();
  const examined: ExaminedProvider[] = [];
  for (const provider of providerNames) {
    const { where, fits } = platforms[provider];
    if (!fits()) {
      examined.push({ provider, runs: false, said: `${named[provider]}: ${where} only`, command: null });
    } else if (!there.includes(provider)) {
      const said = `${named[provider]}: its libraries are not here`;
      examined.push({ provider, runs: false, said, command: provider === 'cuda' ? FETCH_CUDA : null });
    } else {
      const trouble = await tryProduct(provider);
      const missing = trouble && provider === 'webgpu' && process.platform === 'linux' ? VULKAN : null;
      const said = trouble ? `${named[provider]}: ${trouble}` : named[provider];
      examined.push({ provider, runs: trouble === null, said, command: missing });
    }
  }
  return examined;
}

/**
 * WebGPU reaches a card through its Vulkan driver, which Linux distributions keep in a package of its own. NVIDIA's is installed with its
 * kernel module and loads nothing without these libraries, on machines without a screen too.
 */
const VULKAN = existsSync('/dev/nvidiactl')
  ? 'sudo apt-get install libvulkan1 libegl1 libglx0 libx11-6 libxext6'
  : 'sudo apt-get install mesa-vulkan-drivers';

/** What went wrong with a product of two small matrices; null when it is right. */
async function tryProduct(provider: Provider): Promise<string | null> {
  const graph = new Graph();
  const a = graph.input('a', 'float32', ['rows', 2]);
  graph.output('product', f.matmul(a, graph.constant([1, 2, 3, 4], [2, 2])));
  try {
    const session = await Session.create(graph, { providers: [provider] });
    try {
      const { product } = await session.run({ a: float32(Float32Array.of(1, 1), [1, 2]) });
      const [x, y] = await floatsOf(product!);
      return x === 4 && y === 6 ? null : `it computes [${x}, ${y}] where [4, 6] is right`;
    } finally {
      await session.dispose();
    }
  } catch (error) {
    const said = error instanceof EmendError || error instanceof Error ? error.message : String(error);
    return said.replace(/^No execution provider could load this model\. \w+: /, '').split('\n')[0]!;
  }
}
