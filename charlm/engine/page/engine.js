// Computation with a trained model: the network and the n-gram model of charlm/engine, drawing of tokens, and scores.
//
// It reads the weights in half precision, and computes in double precision. Log-probabilities are in nats.
// A predictor has a method `start` that returns a reader. A reader has `advance(id)`, which reads a token, and
// `logProbs()`, which returns a new Float64Array with the log-probability of each next token. The readers of a network
// and of an n-gram model also have `probs()`, which returns the probabilities.

"use strict";

/** Gates and parts of the state of each cell, in the order of the weight matrices; see CELLS in charlm/config.py. */
const CELLS = {
  lstm: { gates: 4, hasMemory: true },
  gru: { gates: 3, hasMemory: false },
  rnn: { gates: 1, hasMemory: false },
};

/** Maximum number of numbers of the table of input products. */
const MAX_TABLE_NUMBERS = 2 ** 24;

/** Probability to which smaller ones are raised, so that every logarithm is finite; see charlm/engine/ngram.py. */
const MIN_PROB = 1.2e-38;

const NUM_CODE_POINTS = 0x110000;

/** Return the bytes of a text in base64, which may have newlines. */
function decodeBase64(text) {
  const values = new Uint8Array(128).fill(64);
  [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"].forEach((char, value) => {
    values[char.charCodeAt(0)] = value;
  });
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4));
  let [size, bits, buffer] = [0, 0, 0];
  for (let at = 0; at < text.length; at++) {
    const value = values[text.charCodeAt(at)];
    if (value === 64) continue;
    buffer = ((buffer << 6) | value) & 0xffffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[size++] = buffer >> bits;
    }
  }
  return bytes.subarray(0, size);
}

/** Return the numbers that half-precision numbers, given by their bits, stand for. */
function fromHalf(bits) {
  const table = new Float32Array(2 ** 16);
  for (let half = 0; half < table.length; half++) {
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
    table[half] = half & 0x8000 ? -size : size;
  }
  return Float32Array.from(bits, (half) => table[half]);
}

/** Return the tensors of a model by name. Each has its numbers and its shape. */
function readTensors(entries, bytes) {
  const types = { F16: Uint16Array, U8: Uint8Array, I32: Int32Array };
  const tensors = {};
  for (const [name, { dtype, shape, offset }] of Object.entries(entries)) {
    const length = shape.reduce((product, size) => product * size, 1);
    const numbers = new types[dtype](bytes.buffer, bytes.byteOffset + offset, length);
    tensors[name] = { shape, numbers: dtype === "F16" ? fromHalf(numbers) : numbers };
  }
  return tensors;
}

/** Matrix of R rows and C columns. */
class Matrix {
  constructor({ numbers, shape }) {
    this.numbers = numbers;
    [this.rows, this.columns] = shape;
  }

  row(index) {
    return this.numbers.subarray(index * this.columns, (index + 1) * this.columns);
  }

  /** Add the product with a vector to `sums`. Four rows and two columns at a time take half the time of one number. */
  addProduct(vector, sums) {
    const { numbers, rows, columns } = this;
    let row = 0;
    for (; row + 4 <= rows; row += 4) {
      const first = row * columns;
      const second = first + columns;
      const third = second + columns;
      const fourth = third + columns;
      let [a, b, c, d] = [0, 0, 0, 0];
      let column = 0;
      for (; column + 2 <= columns; column += 2) {
        const [left, right] = [vector[column], vector[column + 1]];
        a += numbers[first + column] * left + numbers[first + column + 1] * right;
        b += numbers[second + column] * left + numbers[second + column + 1] * right;
        c += numbers[third + column] * left + numbers[third + column + 1] * right;
        d += numbers[fourth + column] * left + numbers[fourth + column + 1] * right;
      }
      if (column < columns) {
        const last = vector[column];
        a += numbers[first + column] * last;
        b += numbers[second + column] * last;
        c += numbers[third + column] * last;
        d += numbers[fourth + column] * last;
      }
      sums[row] += a;
      sums[row + 1] += b;
      sums[row + 2] += c;
      sums[row + 3] += d;
    }
    for (; row < rows; row++) {
      let sum = 0;
      for (let column = 0; column < columns; column++) sum += numbers[row * columns + column] * vector[column];
      sums[row] += sum;
    }
  }
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

/** One recurrent layer, with the equations and the layout of PyTorch. */
class Layer {
  constructor(cell, size, tensors, prefix) {
    const part = (name) => tensors[`${prefix}.${name}_l0`];
    this.cell = cell;
    this.size = size;
    this.inputs = new Matrix(part("weight_ih"));
    this.recurrent = new Matrix(part("weight_hh"));
    this.inputBias = Float64Array.from(part("bias_ih").numbers);
    this.recurrentBias = Float64Array.from(part("bias_hh").numbers);
    this.product = new Float64Array(this.recurrentBias.length);
  }

  /** Return the part of the gates that does not depend on the state. */
  project(input) {
    const gates = this.inputBias.slice();
    this.inputs.addProduct(input, gates);
    return gates;
  }

  /** Compute one time step: update the state, `hidden` and for an LSTM `memory`, in place. */
  step(projected, { hidden, memory }) {
    const { size, product } = this;
    product.set(this.recurrentBias);
    this.recurrent.addProduct(hidden, product);
    for (let unit = 0; unit < size; unit++) {
      const first = projected[unit] + product[unit];
      if (this.cell === "rnn") {
        hidden[unit] = Math.tanh(first);
        continue;
      }
      const [next, last] = [unit + size, unit + 2 * size];
      const second = projected[next] + product[next];
      if (this.cell === "gru") {
        const candidate = Math.tanh(projected[last] + sigmoid(first) * product[last]);
        hidden[unit] = candidate + sigmoid(second) * (hidden[unit] - candidate);
      } else {
        const third = projected[last] + product[last];
        const fourth = projected[last + size] + product[last + size];
        memory[unit] = sigmoid(second) * memory[unit] + sigmoid(first) * Math.tanh(third);
        hidden[unit] = sigmoid(fourth) * Math.tanh(memory[unit]);
      }
    }
  }
}

/** Recurrent network: a predictor. */
class Network {
  constructor(config, tensors) {
    this.config = config;
    this.layers = Array.from(
      { length: config.num_layers },
      (_, layer) => new Layer(config.cell, config.hidden_size, tensors, `core.layers.${layer}`),
    );
    this.embedding = new Matrix(tensors["embedding.weight"]);
    this.decoder = tensors["decoder.weight"] ? new Matrix(tensors["decoder.weight"]) : this.embedding;
    this.decoderBias = Float64Array.from(tensors["decoder.bias"].numbers);
    this.table = new Map();
  }

  /** Return the input product of the first layer for a token. It is computed once for each token. */
  lookUp(id) {
    let projected = this.table.get(id);
    if (projected === undefined) {
      projected = this.layers[0].project(this.embedding.row(id));
      if (this.table.size * projected.length > MAX_TABLE_NUMBERS) this.table.clear();
      this.table.set(id, projected);
    }
    return projected;
  }

  start() {
    const { hidden_size: size, cell } = this.config;
    const states = this.layers.map(() => ({
      hidden: new Float64Array(size),
      memory: CELLS[cell].hasMemory ? new Float64Array(size) : null,
    }));
    return new NetworkReader(this, states);
  }
}

class NetworkReader {
  constructor(network, states) {
    this.network = network;
    this.states = states;
  }

  advance(id) {
    let projected = this.network.lookUp(id);
    this.network.layers.forEach((layer, index) => {
      if (index) projected = layer.project(this.states[index - 1].hidden);
      layer.step(projected, this.states[index]);
    });
  }

  logProbs() {
    return logSoftmax(this.logits());
  }

  probs() {
    return softmax(this.logits());
  }

  logits() {
    const { network, states } = this;
    let output = states[states.length - 1].hidden;
    if (network.config.skip_connections) {
      output = output.map((_, unit) => states.reduce((sum, { hidden }) => sum + hidden[unit], 0));
    }
    const logits = network.decoderBias.slice();
    network.decoder.addProduct(output, logits);
    return logits;
  }
}

function highestOf(numbers) {
  let highest = -Infinity;
  for (const number of numbers) highest = Math.max(highest, number);
  return highest;
}

/** Replace logits by log-probabilities. */
function logSoftmax(logits) {
  const highest = highestOf(logits);
  let total = 0;
  for (const logit of logits) total += Math.exp(logit - highest);
  const normaliser = highest + Math.log(total);
  for (let id = 0; id < logits.length; id++) logits[id] -= normaliser;
  return logits;
}

/** Replace logits by probabilities. */
function softmax(logits) {
  const highest = highestOf(logits);
  let total = 0;
  for (let id = 0; id < logits.length; id++) {
    logits[id] = Math.exp(logits[id] - highest);
    total += logits[id];
  }
  for (let id = 0; id < logits.length; id++) logits[id] /= total;
  return logits;
}

/** N-gram model, in the layout of charlm/engine/ngram.py: a predictor. */
class NGram {
  constructor(tensors, prefix) {
    const unigrams = Float64Array.from(tensors[`${prefix}weights.1`].numbers);
    const rest = (1 - unigrams.reduce((sum, weight) => sum + weight, 0)) / unigrams.length;
    this.unigrams = unigrams.map((weight) => weight + rest);
    this.levels = [];
    for (let order = 2; tensors[`${prefix}weights.${order}`]; order++) {
      const part = (name) => tensors[`${prefix}${name}.${order}`].numbers;
      const begins = new Uint32Array(part("counts").length + 1);
      part("counts").forEach((count, context) => {
        begins[context + 1] = begins[context] + count;
      });
      this.levels.push({ tokens: part("tokens"), weights: part("weights"), begins });
    }
  }

  start() {
    return new NGramReader(this, new Array(this.levels.length).fill(-1));
  }

  /** Return the index of an n-gram of a level, or -1. */
  find({ tokens, begins }, context, id) {
    if (context < 0) return -1;
    let [low, high] = [begins[context], begins[context + 1]];
    const end = high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (tokens[middle] < id) low = middle + 1;
      else high = middle;
    }
    return low < end && tokens[low] === id ? low : -1;
  }
}

class NGramReader {
  /** @param {number[]} contexts - Index of the last 1, 2, ... tokens among the n-grams of this order; -1 if unknown. */
  constructor(ngram, contexts) {
    this.ngram = ngram;
    this.contexts = contexts;
  }

  advance(id) {
    this.contexts = this.contexts.map((_, order) =>
      order ? this.ngram.find(this.ngram.levels[order - 1], this.contexts[order - 1], id) : id,
    );
  }

  logProbs() {
    return this.probs().map(Math.log);
  }

  probs() {
    const probs = this.ngram.unigrams.slice();
    this.ngram.levels.forEach(({ tokens, weights, begins }, order) => {
      const context = this.contexts[order];
      if (context < 0) return;
      let backoff = 1;
      for (let entry = begins[context]; entry < begins[context + 1]; entry++) backoff -= weights[entry];
      for (let id = 0; id < probs.length; id++) probs[id] *= backoff;
      for (let entry = begins[context]; entry < begins[context + 1]; entry++) probs[tokens[entry]] += weights[entry];
    });
    for (let id = 0; id < probs.length; id++) probs[id] = Math.max(probs[id], MIN_PROB);
    return probs;
  }
}

/**
 * Return the weights of a network, of an n-gram model and of the square root of the product of their probabilities,
 * which depend on the predictions; see charlm/engine/gate.py.
 *
 * @param {number[][]} coefficients - Those of the scores of the n-gram model and of the geometric mean.
 * @param {Float64Array} network - Probabilities by the network.
 * @param {Float64Array} ngram - Probabilities by the n-gram model.
 */
function gateWeights(coefficients, network, ngram) {
  let [networkSquares, ngramSquares, total] = [0, 0, 0];
  for (let id = 0; id < network.length; id++) {
    const [first, second] = [network[id], ngram[id]];
    networkSquares += first * first;
    ngramSquares += second * second;
    total += Math.sqrt(first * second);
  }
  const [unsure, ngramUnsure, distance] = [networkSquares, ngramSquares, total].map(
    (sum) => -Math.log(Math.max(sum, MIN_PROB)),
  );
  const scores = coefficients.map(([a, b, c, d]) => a + b * unsure + c * ngramUnsure + d * distance);
  const [first, second, both] = softmax([0, ...scores]);
  return [first, second, both / Math.max(total, MIN_PROB)];
}

/** Interpolation of the probabilities of a network and an n-gram model: a predictor. */
class Mixture {
  /**
   * @param {Network} network
   * @param {NGram} ngram
   * @param {{weight: number, gate?: number[][]}} weights - The weight of the n-gram model, from 0 to 1, or the
   *   coefficients of a gate, which replace it.
   */
  constructor(network, ngram, { weight, gate }) {
    Object.assign(this, { network, ngram, weight, gate });
  }

  start() {
    return new MixtureReader(this, this.network.start(), this.ngram.start());
  }
}

class MixtureReader {
  constructor(mixture, first, second) {
    Object.assign(this, { mixture, first, second });
  }

  advance(id) {
    this.first.advance(id);
    this.second.advance(id);
  }

  logProbs() {
    const { weight, gate } = this.mixture;
    const [probs, counted] = [this.first.probs(), this.second.probs()];
    const [first, second, both] = gate ? gateWeights(gate, probs, counted) : [1 - weight, weight, 0];
    for (let id = 0; id < probs.length; id++) {
      const prob = first * probs[id] + second * counted[id] + both * Math.sqrt(probs[id] * counted[id]);
      probs[id] = Math.log(Math.max(prob, MIN_PROB));
    }
    return probs;
  }
}

/** Trained model with its tokenizer. */
class Model {
  /**
   * @param {object} header - The description that charlm/engine/page_export.py writes.
   * @param {string} base64 - The numbers of the tensors.
   */
  constructor(header, base64) {
    const tensors = readTensors(header.tensors, decodeBase64(base64));
    this.tokenizer = makeTokenizer(header.tokenizer);
    this.separator = header.separator;
    this.predictor = header.config.cell in CELLS ? new Network(header.config, tensors) : null;
    if (header.ngram) {
      const ngram = new NGram(tensors, "ngram/");
      this.predictor = this.predictor ? new Mixture(this.predictor, ngram, header.ngram) : ngram;
    }
    this.spelling = header.spelling ? new Spelling(header.spelling.chars, new NGram(tensors, "spelling/")) : null;
  }

  /** Return a reader that has read tokens from the beginning. */
  read(ids) {
    const reader = this.predictor.start();
    for (const id of ids) reader.advance(id);
    return reader;
  }

  /** Return the cost of the characters of an unknown token in nats; 0 if the model file has no costs for them. */
  spellingNats(part) {
    if (this.tokenizer.kind === "char") return Math.log(NUM_CODE_POINTS - this.tokenizer.tokens.length + 1);
    return this.spelling ? this.spelling.nats(this.tokenizer.unknownIn(part)[0] ?? part.trim()) : 0;
  }
}

/** Model of the spelling of unknown words: an n-gram model of characters between two newlines. */
class Spelling {
  constructor(chars, ngram) {
    this.tokenizer = new CharTokenizer({ chars: `\n${chars}` });
    this.ngram = ngram;
    this.unknownNats = Math.log(NUM_CODE_POINTS - this.tokenizer.tokens.length + 1);
  }

  nats(word) {
    const reader = this.ngram.start();
    let nats = 0;
    this.tokenizer.encode(`\n${word}\n`).forEach((id, index) => {
      if (index) nats -= reader.logProbs()[id];
      if (id === UNKNOWN_ID) nats += this.unknownNats;
      reader.advance(id);
    });
    return nats;
  }
}

/**
 * Score a text from the zero state, after one newline.
 *
 * @yields {{text: string, nats: number, spelling: number, isUnknown: boolean}} One entry for each token. `nats`
 *   includes the spelling of unknown tokens.
 */
function* scoreTokens(model, text) {
  const { tokenizer } = model;
  const ids = tokenizer.encode(text);
  const texts = tokenTexts(tokenizer, text, ids);
  const reader = model.read(tokenizer.encode("\n"));
  for (let index = 0; index < ids.length; index++) {
    const isUnknown = ids[index] === UNKNOWN_ID;
    const spelling = isUnknown ? model.spellingNats(texts[index]) : 0;
    yield { text: texts[index], nats: spelling - reader.logProbs()[ids[index]], spelling, isUnknown };
    if (index + 1 < ids.length) reader.advance(ids[index]);
  }
}
