/** @file Activations by the names configs give them. */
import * as f from '../../tensor/functions.ts';
import type { Tensor } from '../../tensor/graph.ts';
import type { Activation } from '../config.ts';

export function activate(x: Tensor, kind: Activation): Tensor {
  switch (kind) {
    case 'silu':
      return f.silu(x);
    case 'quick_gelu':
      return f.quickGelu(x);
    case 'gelu':
      return f.gelu(x);
    case 'gelu_tanh':
      return f.gelu(x, 'tanh');
    case 'relu':
      return f.relu(x);
  }
}
