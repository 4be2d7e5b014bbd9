// Generation of text: random numbers, choice of the next token, and the text that is being written.
//
// The random numbers are those of numpy.random.default_rng, so that a seed gives the text that `charlm sample` writes.
// Rounding differs a little, so that long texts can part where the number drawn is very close to the border of a token.

"use strict";

const MASK_32 = 0xffffffffn;
const MASK_64 = 2n ** 64n - 1n;
const MASK_128 = 2n ** 128n - 1n;
const PCG_MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;

/** Number of previous tokens that are decoded together with a new one. */
const DECODING_WINDOW = 16;

/** Return eight words of 32 bits made from a seed: NumPy's SeedSequence. */
function seedWords(seed) {
  const times = (x, y) => Math.imul(x, y) >>> 0;
  const words = [];
  for (let rest = BigInt(seed); rest > 0n; rest >>= 32n) words.push(Number(rest & MASK_32));
  let constant = 0x43b0d7e5;
  const hash = (value) => {
    const mixed = (value ^ constant) >>> 0;
    constant = times(constant, 0x931e8875);
    const product = times(mixed, constant);
    return (product ^ (product >>> 16)) >>> 0;
  };
  const mix = (x, y) => {
    const difference = (times(0xca01f9dd, x) - times(0x4973f715, y)) >>> 0;
    return (difference ^ (difference >>> 16)) >>> 0;
  };
  const pool = [0, 1, 2, 3].map((index) => hash(words[index] ?? 0));
  for (let source = 0; source < 4; source++) {
    for (let target = 0; target < 4; target++) {
      if (source !== target) pool[target] = mix(pool[target], hash(pool[source]));
    }
  }
  for (const word of words.slice(4)) {
    for (let target = 0; target < 4; target++) pool[target] = mix(pool[target], hash(word));
  }
  let factor = 0x8b51f9dd;
  return Array.from({ length: 8 }, (_, index) => {
    const mixed = (pool[index % 4] ^ factor) >>> 0;
    factor = times(factor, 0x58f38ded);
    const product = times(mixed, factor);
    return (product ^ (product >>> 16)) >>> 0;
  });
}

/** Random numbers from [0, 1): NumPy's PCG64, O'Neill, pcg-random.org. */
class RandomNumbers {
  constructor(seed) {
    const words = seedWords(seed).map(BigInt);
    const number = (first) =>
      (words[first + 1] << 96n) | (words[first] << 64n) | (words[first + 3] << 32n) | words[first + 2];
    this.increment = ((number(4) << 1n) | 1n) & MASK_128;
    this.state = (this.increment + number(0)) & MASK_128;
    this.advance();
  }

  advance() {
    this.state = (this.state * PCG_MULTIPLIER + this.increment) & MASK_128;
  }

  next() {
    this.advance();
    const folded = (this.state >> 64n) ^ (this.state & MASK_64);
    const turn = this.state >> 122n;
    const bits = ((folded >> turn) | (folded << (64n - turn))) & MASK_64;
    return Number(bits >> 11n) / 2 ** 53;
  }
}

/**
 * Sum numbers in the order of NumPy, so that a token at the limit of top-p is kept or left out as in the engine.
 * @param {number[]} values
 */
function pairwiseSum(values) {
  if (values.length < 8) return values.reduce((sum, value) => sum + value, 0);
  if (values.length > 128) {
    const half = Math.floor(values.length / 2);
    const middle = half - (half % 8);
    return pairwiseSum(values.slice(0, middle)) + pairwiseSum(values.slice(middle));
  }
  const end = values.length - (values.length % 8);
  const [a, b, c, d, e, f, g, h] = values.slice(0, 8).map((first, column) => {
    let sum = first;
    for (let place = column + 8; place < end; place += 8) sum += values[place];
    return sum;
  });
  return values.slice(end).reduce((sum, value) => sum + value, a + b + (c + d) + (e + f + (g + h)));
}

/** Return the relative probabilities with which tokens are drawn: temperature first, then top-p. */
function relativeProbs(logProbs, { temperature, topP }) {
  const highest = logProbs.reduce((best, value) => Math.max(best, value), -Infinity);
  if (temperature === 0) {
    const best = logProbs.indexOf(highest);
    return logProbs.map((_, id) => (id === best ? 1 : 0));
  }
  const probs = logProbs.map((value) => Math.exp((value - highest) / temperature));
  if (topP < 1) {
    const order = Array.from(probs.keys()).sort((a, b) => probs[b] - probs[a]);
    const share = topP * pairwiseSum(order.map((id) => probs[id]));
    let cumulative = 0;
    for (const id of order) {
      cumulative += probs[id];
      if (cumulative - probs[id] >= share) probs[id] = 0;
    }
  }
  return probs;
}

/** Draw a token by inverting the cumulative distribution. */
function draw(probs, uniform) {
  const total = probs.reduce((sum, prob) => sum + prob, 0);
  let cumulative = 0;
  return probs.findIndex((prob) => (cumulative += prob) > uniform * total);
}

/** Text that is being written after a prompt. */
class Generation {
  /**
   * @param {Model} model
   * @param {{prompt: string, seed: number|bigint}} start
   */
  constructor(model, { prompt, seed }) {
    this.model = model;
    this.randomNumbers = new RandomNumbers(seed);
    this.tail = foldLineEnds(prompt);
    const { ids, dropsSpace } = model.tokenizer.encodePrompt(`\n${this.tail}`);
    this.window = ids.slice(-DECODING_WINDOW);
    this.dropsSpace = dropsSpace;
    this.numTokens = 0;
    // A model of a list reads each item from the zero state.
    const item = model.separator === null ? this.tail : this.tail.split(model.separator).pop();
    this.reader = model.read(model.tokenizer.encodePrompt(`\n${item}`).ids);
    this.logProbs = this.reader.logProbs();
  }

  /** Return the tokens and their probabilities of being the next one, the most probable first. */
  ranking() {
    const ids = Array.from(this.logProbs.keys()).sort((a, b) => this.logProbs[b] - this.logProbs[a]);
    return ids.map((id) => ({ id, token: this.model.tokenizer.tokens[id], prob: Math.exp(this.logProbs[id]) }));
  }

  /** Choose the next token at random and append it; return its text. The unknown token is never chosen. */
  next(settings) {
    const logProbs = this.logProbs.slice();
    logProbs[UNKNOWN_ID] = -Infinity;
    return this.append(draw(relativeProbs(logProbs, settings), this.randomNumbers.next()));
  }

  /** Append a token; return its text. */
  append(id) {
    const text = this.textOf(id);
    this.window = [...this.window, id].slice(-DECODING_WINDOW);
    this.numTokens++;
    this.tail += text;
    this.reader.advance(id);
    const { separator, tokenizer } = this.model;
    if (separator !== null && this.tail.endsWith(separator)) this.reader = this.model.read(tokenizer.encode("\n"));
    this.logProbs = this.reader.logProbs();
    return text;
  }

  /** Return the text that a token would append. */
  textOf(id) {
    const { tokenizer } = this.model;
    if (tokenizer.kind === "char") return tokenizer.tokens[id];
    const text = tokenizer.decode([...this.window, id]).slice(tokenizer.decode(this.window).length);
    return this.dropsSpace && this.numTokens === 0 && text.startsWith(" ") ? text.slice(1) : text;
  }
}
