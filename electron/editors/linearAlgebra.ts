/**
 * @file Systems of equations with symmetric positive definite matrices, in double precision.
 */

/**
 * The lower factor of A = F·Fᵀ (Cholesky). matrix [size, size], of which the lower half is read → [size, size] with zeros above; null
 * where A is not positive definite within rounding.
 */
export function choleskyFactor(matrix: Float64Array, size: number): Float64Array | null {
  const factor = new Float64Array(size * size);
  let largest = 0;
  for (let i = 0; i < size; i++) largest = Math.max(largest, matrix[i * size + i]!);
  for (let row = 0; row < size; row++) {
    const own = factor.subarray(row * size, row * size + size);
    for (let column = 0; column <= row; column++) {
      const other = factor.subarray(column * size, column * size + size);
      let sum = matrix[row * size + column]!;
      for (let k = 0; k < column; k++) sum -= own[k]! * other[k]!;
      if (row !== column) own[column] = sum / other[column]!;
      else if (sum > largest * size * Number.EPSILON) own[row] = Math.sqrt(sum);
      else return null;
    }
  }
  return factor;
}

/** x of F·Fᵀ·x = b. factor [size, size] as `choleskyFactor` gives it, b [size] → [size]. */
export function solveFactored(factor: Float64Array, b: ArrayLike<number>): Float64Array {
  const size = b.length;
  const x = Float64Array.from(b);
  for (let row = 0; row < size; row++) {
    let sum = x[row]!;
    for (let k = 0; k < row; k++) sum -= factor[row * size + k]! * x[k]!;
    x[row] = sum / factor[row * size + row]!;
  }
  for (let row = size - 1; row >= 0; row--) {
    x[row] = x[row]! / factor[row * size + row]!;
    for (let k = 0; k < row; k++) x[k]! -= factor[row * size + k]! * x[row]!;
  }
  return x;
}
