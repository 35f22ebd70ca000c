/**
 * @file Reverse-mode differentiation: emits the nodes that compute gradients into the same graph.
 */
import { EmendError } from '../errors.ts';
import { shapeText } from './dims.ts';
import * as f from './functions.ts';
import type { Node, Tensor } from './graph.ts';
import { operator } from './operators.ts';

/**
 * d loss / d target for each target, in the targets' shapes. `loss` is a scalar (shape []).
 * Only nodes between a target and the loss are visited: nothing is computed for frozen weights.
 * Throws when a gradient would have to pass an operator that has no backward rule, naming it,
 * and when the loss does not depend on a target.
 */
export function gradients(loss: Tensor, targets: readonly Tensor[]): Tensor[] {
  if (loss.shape.length !== 0) {
    throw new EmendError('internal', `A loss must be a scalar; this one is ${shapeText(loss.shape)}.`);
  }
  const graph = loss.graph;
  const nodes = graph.nodes.slice();
  const depends = new Set<number>(targets.map((target) => target.id));
  const path: Node[] = [];
  for (const node of nodes) {
    if (!node.inputs.some((input) => depends.has(input.id))) continue;
    path.push(node);
    // Indices, shapes and conditions have no derivative: the path to the loss is made of floats.
    for (const output of node.outputs) if (output.dtype === 'float32') depends.add(output.id);
  }

  const gradientOf = new Map<number, Tensor>([[loss.id, graph.constant(1)]]);
  for (const node of path.reverse()) {
    const arriving = node.outputs.map((output) => gradientOf.get(output.id));
    if (arriving.every((gradient) => gradient === undefined)) continue;
    const rule = operator(node.operator).backward;
    if (!rule) throw new EmendError('internal', `Backward pass not written for ${node.operator}.`);
    if (node.outputs.length !== 1) throw new EmendError('internal', `${node.operator} has several outputs.`);
    const entries = rule({
      inputs: node.inputs,
      output: node.outputs[0]!,
      gradient: arriving[0]!,
      attributes: node.attributes,
    });
    node.inputs.forEach((input, index) => {
      if (!depends.has(input.id)) return;
      const entry = entries[index];
      if (!entry)
        throw new EmendError('internal', `${node.operator} passes no gradient to its input ${index}.`);
      const gradient = entry();
      const sofar = gradientOf.get(input.id);
      gradientOf.set(input.id, sofar ? f.add(sofar, gradient) : gradient);
    });
  }

  return targets.map((target) => {
    const gradient = gradientOf.get(target.id);
    if (!gradient) throw new EmendError('internal', `The loss does not depend on ${target.name}.`);
    return gradient;
  });
}
