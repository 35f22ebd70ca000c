/** @file A real engine process whose messages can be held back, so that what runs goes on running. */
import type { EngineProcess } from '../../electron/engine/supervisor.ts';

export function holdable(fork: () => EngineProcess) {
  let held: Array<() => void> | null = null;
  return {
    launch: (): EngineProcess => {
      const forked = fork();
      return {
        ...forked,
        send: (message) => {
          if (held) held.push(() => forked.send(message));
          else forked.send(message);
        },
      };
    },
    /** Lets nothing reach the engine until what it gives back is called. */
    hold: () => {
      held = [];
      return () => {
        const waiting = held ?? [];
        held = null;
        for (const send of waiting) send();
      };
    },
  };
}
