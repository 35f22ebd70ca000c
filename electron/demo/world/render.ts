/**
 * @file Scenes to pixels: compositing in plain TypeScript, fast enough to paint every training picture anew.
 */
import sharp from 'sharp';
import { objectNamed } from './objects.ts';
import { seededRandom } from './random.ts';
import {
  CANVAS,
  type Clutter,
  COLOURS,
  type Colour,
  extentOf,
  type Scene,
  type SceneObject,
} from './scene.ts';
import { spriteOf } from './sprites.ts';

type Rgb = readonly [number, number, number];

const NOISE_TABLE = makeNoiseTable();
const PATCH_SHARE = 0.35;

/**
 * Paints a scene. `loadSprites()` must have been awaited.
 * @param size side of the picture in pixels
 * @returns RGB bytes, [size, size, 3]
 */
export function renderScene(scene: Scene, size: number = CANVAS): Uint8Array {
  const canvas = new Float32Array(size * size * 3);
  paintBackground(canvas, size, scene);
  for (const shape of scene.clutter) paintClutter(canvas, size, shape);
  for (const object of scene.objects) {
    drawObject(object, size, (pixel, r, g, b, alpha) => {
      const at = pixel * 3;
      canvas[at] = canvas[at]! * (1 - alpha) + r;
      canvas[at + 1] = canvas[at + 1]! * (1 - alpha) + g;
      canvas[at + 2] = canvas[at + 2]! * (1 - alpha) + b;
    });
  }
  return develop(canvas, scene);
}

/** The picture as a PNG file's bytes. `loadSprites()` must have been awaited. */
export function scenePng(scene: Scene, size: number = CANVAS): Promise<Buffer> {
  return sharp(renderScene(scene, size), { raw: { width: size, height: size, channels: 3 } })
    .png({ compressionLevel: 6 })
    .toBuffer();
}

/**
 * Which kind of object each patch shows: the kind with the largest visible area there, if that is at least
 * 35 % of the patch, as its index in `OBJECTS`; −1 for background.
 * @param grid patches a side
 * @returns [grid * grid], row by row
 */
export function patchLabels(scene: Scene, grid = 10): Int16Array {
  return patchOwners(scene, grid).map((owner) =>
    owner < 0 ? -1 : objectNamed(scene.objects[owner]!.name).index,
  );
}

/**
 * Which of the scene's objects each patch belongs to, by {@link patchLabels}' rule: of the kind it shows, the object with
 * the largest visible area there, as its place in `scene.objects`; −1 for background.
 * @returns [grid * grid], row by row
 */
export function patchOwners(scene: Scene, grid = 10): Int16Array {
  const size = Math.ceil(CANVAS / grid) * grid;
  const side = size / grid;
  const areas: Float32Array[] = [];
  const uncovered = new Float32Array(size * size).fill(1);
  // from the top object down: each sees what those above it leave
  for (let i = scene.objects.length - 1; i >= 0; i--) {
    const area = new Float32Array(grid * grid);
    drawObject(scene.objects[i]!, size, (pixel, _r, _g, _b, alpha) => {
      const row = Math.floor(pixel / size / side);
      const column = Math.floor((pixel % size) / side);
      area[row * grid + column] = area[row * grid + column]! + alpha * uncovered[pixel]!;
      uncovered[pixel] = uncovered[pixel]! * (1 - alpha);
    });
    areas[i] = area;
  }
  const owners = new Int16Array(grid * grid).fill(-1);
  for (let patch = 0; patch < owners.length; patch++) {
    const ofKind = new Map<string, { total: number; owner: number }>();
    for (const [i, object] of scene.objects.entries()) {
      const area = areas[i]![patch]!;
      const known = ofKind.get(object.name);
      if (!known) ofKind.set(object.name, { total: area, owner: i });
      else {
        known.total += area;
        if (area > areas[known.owner]![patch]!) known.owner = i;
      }
    }
    let most = PATCH_SHARE * side * side;
    for (const { total, owner } of ofKind.values()) {
      if (total < most) continue;
      most = total;
      owners[patch] = owner;
    }
  }
  return owners;
}

/**
 * Resamples an object's drawing to its place by area averaging and hands every covered pixel to `paint`:
 * its index in the [size, size] picture, premultiplied colour 0–255, and alpha 0–1.
 */
function drawObject(
  object: SceneObject,
  size: number,
  paint: (pixel: number, r: number, g: number, b: number, alpha: number) => void,
): void {
  const sprite = spriteOf(objectNamed(object.name).index, object.style);
  const scale = size / CANVAS;
  const { width, height } = extentOf(object);
  const columns = resampling(
    sprite.width,
    (object.x - width / 2) * scale,
    width * scale,
    size,
    object.mirror,
  );
  const { flip, channels } = object.disguise ?? { flip: false, channels: [0, 1, 2] as const };
  const rows = resampling(sprite.height, (object.y - height / 2) * scale, height * scale, size, flip);
  for (const row of rows) {
    for (const column of columns) {
      let r = 0;
      let g = 0;
      let b = 0;
      let alpha = 0;
      for (let j = 0; j < row.weights.length; j++) {
        const line = (row.first + j) * sprite.width;
        const rowWeight = row.weights[j]!;
        for (let i = 0; i < column.weights.length; i++) {
          const at = (line + column.first + i) * 4;
          const a = sprite.pixels[at + 3]!;
          if (a === 0) continue;
          const weight = rowWeight * column.weights[i]!;
          r += weight * sprite.pixels[at + channels[0]]!;
          g += weight * sprite.pixels[at + channels[1]]!;
          b += weight * sprite.pixels[at + channels[2]]!;
          alpha += weight * a;
        }
      }
      if (alpha > 0.5) paint(row.target * size + column.target, r, g, b, alpha / 255);
    }
  }
}

interface Taps {
  /** Pixel of the picture. */
  target: number;
  /** First source pixel and the weights from there on; weights sum to the covered share of the target pixel. */
  first: number;
  weights: number[];
}

/** Along one axis: which source pixels make up each target pixel when `source` pixels are laid over [start, start + length). */
function resampling(source: number, start: number, length: number, size: number, mirror: boolean): Taps[] {
  const taps: Taps[] = [];
  const step = source / length;
  const end = Math.min(size - 1, Math.ceil(start + length) - 1);
  for (let target = Math.max(0, Math.floor(start)); target <= end; target++) {
    let low = Math.max(0, (target - start) * step);
    let high = Math.min(source, (target + 1 - start) * step);
    if (mirror) [low, high] = [source - high, source - low];
    if (high - low < 1e-6) continue;
    const first = Math.min(source - 1, Math.floor(low + 1e-9));
    const weights: number[] = [];
    for (let pixel = first; pixel < high - 1e-9 && pixel < source; pixel++) {
      weights.push((Math.min(high, pixel + 1) - Math.max(low, pixel)) / step);
    }
    taps.push({ target, first, weights });
  }
  return taps;
}

function paintBackground(canvas: Float32Array, size: number, scene: Scene): void {
  const { background } = scene;
  const top = shadeOf(background.colour, background.shade);
  const bottom = shadeOf(background.ground ?? background.colour, background.secondShade);
  const texture = background.pattern === 'texture' ? softTexture(background.seed) : undefined;
  for (let y = 0; y < size; y++) {
    const v = (y + 0.5) / size;
    for (let x = 0; x < size; x++) {
      const at = (y * size + x) * 3;
      let mix = 0;
      if (background.pattern === 'gradient') mix = v;
      else if (background.pattern === 'two-tone') mix = v > background.horizon ? 1 : 0;
      else if (texture) mix = texture((x + 0.5) / size, v);
      for (let c = 0; c < 3; c++) canvas[at + c] = top[c]! + (bottom[c]! - top[c]!) * mix;
    }
  }
}

/** A smooth random field on the unit square with values in 0–1: bilinear between the knots of a 7 × 7 lattice. */
function softTexture(seed: number): (u: number, v: number) => number {
  const random = seededRandom(seed);
  const knots = Float32Array.from({ length: 49 }, () => random.next());
  return (u, v) => {
    const x = u * 5.999;
    const y = v * 5.999;
    const i = Math.floor(x);
    const j = Math.floor(y);
    const fx = x - i;
    const fy = y - j;
    const upper = knots[j * 7 + i]! * (1 - fx) + knots[j * 7 + i + 1]! * fx;
    const lower = knots[j * 7 + 7 + i]! * (1 - fx) + knots[j * 7 + 8 + i]! * fx;
    return upper * (1 - fy) + lower * fy;
  };
}

function paintClutter(canvas: Float32Array, size: number, shape: Clutter): void {
  const scale = size / CANVAS;
  const reach = shape.size * scale;
  const cx = shape.x * scale;
  const cy = shape.y * scale;
  const change = shape.lightness * 255;
  const cos = Math.cos(shape.angle);
  const sin = Math.sin(shape.angle);
  for (let y = Math.max(0, Math.floor(cy - reach)); y < Math.min(size, cy + reach); y++) {
    for (let x = Math.max(0, Math.floor(cx - reach)); x < Math.min(size, cx + reach); x++) {
      const dx = x + 0.5 - cx;
      const dy = y + 0.5 - cy;
      const distance = Math.hypot(dx, dy);
      const inside =
        shape.shape === 'disc'
          ? distance < reach * 0.7
          : shape.shape === 'ring'
            ? distance < reach && distance > reach * 0.75
            : distance < reach && Math.abs(-sin * dx + cos * dy) < 1.5 * scale;
      if (!inside) continue;
      const at = (y * size + x) * 3;
      for (let c = 0; c < 3; c++) canvas[at + c] = canvas[at + c]! + change;
    }
  }
}

/** Light and noise, rounded to bytes. */
function develop(canvas: Float32Array, scene: Scene): Uint8Array {
  const { brightness, contrast, tint } = scene.light;
  const out = new Uint8Array(canvas.length);
  const gains = tint.map((gain) => gain * brightness * contrast);
  const offset = 127.5 * (1 - contrast) * brightness;
  let state = scene.noise.seed >>> 0;
  for (let i = 0, c = 0; i < canvas.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const value = canvas[i]! * gains[c]! + offset + NOISE_TABLE[state >>> 20]! * scene.noise.strength;
    out[i] = value < 0 ? 0 : value > 255 ? 255 : value + 0.5;
    c = c === 2 ? 0 : c + 1;
  }
  return out;
}

/** 4096 standard normal numbers: cheaper to look up than to draw 43,200 a picture. */
function makeNoiseTable(): Float32Array {
  const random = seededRandom(20);
  return Float32Array.from({ length: 4096 }, () => random.gaussian());
}

function shadeOf(colour: Colour, shade: number): Rgb {
  const { hue, saturation, light } = COLOURS[colour];
  return hslToRgb(hue, saturation, light[0] + (light[1] - light[0]) * shade);
}

/** Hue in degrees, saturation and lightness 0–1, to 0–255. */
function hslToRgb(hue: number, saturation: number, lightness: number): Rgb {
  const a = saturation * Math.min(lightness, 1 - lightness);
  const channel = (n: number): number => {
    const k = (n + hue / 30) % 12;
    return 255 * (lightness - a * Math.max(-1, Math.min(k - 3, 9 - k, 1)));
  };
  return [channel(0), channel(8), channel(4)];
}
