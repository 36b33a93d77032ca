// The random numbers of diffnca.canvas.noise, on the processor.

function high(a, b) { // upper word of a product
  const low = (a & 0xffff) * (b & 0xffff), cross = (a >>> 16) * (b & 0xffff) + (low >>> 16);
  const other = (a & 0xffff) * (b >>> 16) + (cross & 0xffff);
  return ((a >>> 16) * (b >>> 16) + Math.floor(cross / 65536) + (other >>> 16)) >>> 0;
}

export function philox(counter, seed, words = new Uint32Array(4)) { // Philox4x32-10, as diffnca.canvas.noise
  let [a, b, c, d] = counter, [low, up] = seed;
  for (let round = 0; round < 10; round++) {
    const first = high(a, 0xD2511F53), second = high(c, 0xCD9E8D57), lowFirst = Math.imul(a, 0xD2511F53), lowSecond = Math.imul(c, 0xCD9E8D57);
    a = (second ^ b ^ low) >>> 0;
    b = lowSecond >>> 0;
    c = (first ^ d ^ up) >>> 0;
    d = lowFirst >>> 0;
    low = (low + 0x9E3779B9) >>> 0;
    up = (up + 0xBB67AE85) >>> 0;
  }
  words[0] = a; words[1] = b; words[2] = c; words[3] = d;
  return words;
}

function polynomial(factors, x) {
  let sum = 0;
  for (let power = factors.length - 1; power >= 0; power--) sum = sum * x + factors[power];
  return sum;
}

const CENTRAL = [[3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125, 45921.953931549871457,
  67265.770927008700853, 33430.575583588128105, 2509.0809287301226727], [1, 42.313330701600911252, 687.18700749205790830,
  5394.1960214247511077, 21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610]];
const TAIL = [[1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504, 1.27045825245236838258,
  0.241780725177450611770, 2.27238449892691845833e-2, 7.74545014278341407640e-4], [1, 2.05319162663775882187, 1.67638483018380384940,
  0.689767334985100004550, 0.148103976427480074590, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9]];

export function quantile(word) { // of the normal distribution at (word + 0.5) / 2^32: Wichura's AS 241
  const offset = (word + 0.5 - 2 ** 31) * 2 ** -32, square = 0.180625 - offset * offset;
  if (Math.abs(offset) <= 0.425) return offset * polynomial(CENTRAL[0], square) / polynomial(CENTRAL[1], square);
  const radius = Math.sqrt(-Math.log(0.5 - Math.abs(offset))) - 1.6;
  return Math.sign(offset) * polynomial(TAIL[0], radius) / polynomial(TAIL[1], radius);
}
