// Conversion between text and token ids: the tokenizers of charlm/text, with the same results.
//
// Strings are handled by code point, as in Python. Two things can differ: characters that are newer than the Unicode
// version of either side, and lone surrogates that form a pair, which Python keeps apart.

"use strict";

const UNKNOWN_ID = 0;
const UNKNOWN_CHAR = "\ufffd";
const JOIN = "<join>";
const LINE_END_WORD = "<eos>";

/** Class of the characters that are whitespace in Python. The class \s of JavaScript differs. */
const WHITESPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const WORD_OR_MARK = new RegExp(`[^${WHITESPACE}]+`, "gu");
const ONLY_WHITESPACE = new RegExp(`^[${WHITESPACE}]*$`, "u");
const IS_MARK = /^\p{M}/u;
const IS_JAMO = /^[\u1160-\u11ff]/u;

/** Return a text with \n instead of \r\n, as models read it. */
function foldLineEnds(text) {
  return text.replaceAll("\r\n", "\n");
}

/** Changes of a text before it is encoded: lower case and Unicode normal form. */
class Folding {
  constructor(lowercase, normalForm) {
    this.lowercase = lowercase;
    this.normalForm = normalForm;
    this.isActive = lowercase || normalForm !== "none";
    this.extends = new Map();
  }

  fold(text) {
    const normal = this.normal(text);
    return this.lowercase ? this.normal(normal.toLowerCase()) : normal;
  }

  normal(text) {
    return this.normalForm === "none" ? text : text.normalize(this.normalForm);
  }

  /** Return the positions in the original text, an array of characters, of ascending positions in the folded text. */
  originalEnds(chars, ends) {
    const text = chars.join("");
    const folded = Array.from(this.fold(text)).length;
    if (folded === chars.length && this.normal(text) === text) return ends;
    let bounds = [];
    chars.forEach((char, index) => {
      if (index === 0 || !this.extendsPrevious(char)) bounds.push(index);
    });
    bounds.push(chars.length);
    let foldedBounds = [0];
    for (let part = 0; part + 1 < bounds.length; part++) {
      const piece = chars.slice(bounds[part], bounds[part + 1]).join("");
      foldedBounds.push(foldedBounds[part] + Array.from(this.fold(piece)).length);
    }
    if (foldedBounds[foldedBounds.length - 1] !== folded) {
      bounds = [0, chars.length];
      foldedBounds = [0, folded];
    }
    let index = 0;
    return ends.map((end) => {
      while (foldedBounds[index] < end) index++;
      return bounds[index];
    });
  }

  /** Return whether a character may be combined with the one before it. */
  extendsPrevious(char) {
    if (!this.extends.has(char)) {
      const first = char.normalize("NFKD");
      this.extends.set(char, IS_MARK.test(first) || IS_JAMO.test(char) || IS_JAMO.test(first));
    }
    return this.extends.get(char);
  }
}

/** Tokenizer whose tokens are characters. */
class CharTokenizer {
  constructor(data) {
    this.kind = "char";
    this.folding = new Folding(data.lowercase ?? false, data.normalize ?? "none");
    this.tokens = [UNKNOWN_CHAR, ...data.chars];
    this.index = new Map(Array.from(data.chars, (char, position) => [char, position + 1]));
  }

  encode(text) {
    return Array.from(this.folding.fold(text), (char) => this.index.get(char) ?? UNKNOWN_ID);
  }

  encodePrompt(text) {
    return { ids: this.encode(text), dropsSpace: false };
  }

  decode(ids) {
    return ids.map((id) => this.tokens[id]).join("");
  }

  unknownIn(text) {
    return [...new Set(this.folding.fold(text))].filter((char) => !this.index.has(char));
  }

  /** Return the position in the folded text, an array of characters, at which each token ends. */
  foldedEnds(chars) {
    return chars.map((_, index) => index + 1);
  }
}

const NEGATION = /^[nN]['\u2019][tT]$/u;
const LETTER = "[\\p{L}\\p{N}_]";

/** Rule 1 for splitting into words: a word is a run of letters, digits and underscores. */
class LetterRule {
  constructor() {
    const end = `(?!${LETTER})`;
    const negation = `[nN]['\u2019][tT]${end}`;
    this.pieces = new RegExp(
      `\\p{Nd}+(?:[.,]\\p{Nd}+)+${end}|${LETTER}+?(?=${negation})|${negation}` +
        `|['\u2019](?:[sS\u017f]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])${end}` +
        `|${LETTER}+|(?<mark>[^\\p{L}\\p{N}_${WHITESPACE}])|[${WHITESPACE}]`,
      "uy",
    );
    this.word = new RegExp(`^${LETTER}`, "u");
  }

  /** Return the number of code units of the piece at a position of a chunk. */
  pieceLength(chunk, begin) {
    this.pieces.lastIndex = begin;
    const match = this.pieces.exec(chunk);
    let length = match[0].length;
    if (match.groups.mark) {
      // A run of the same mark is one piece. Python compares without regard to case, which circled letters have.
      const mark = match[0].toLowerCase();
      while (chunk.substr(begin + length, match[0].length).toLowerCase() === mark) length += match[0].length;
    }
    return length;
  }

  cut(chunk) {
    const found = [];
    for (let begin = 0; begin < chunk.length; begin += found[found.length - 1].length) {
      found.push(chunk.substr(begin, this.pieceLength(chunk, begin)));
    }
    return found;
  }

  isWord(token) {
    return this.word.test(token) && !NEGATION.test(token);
  }
}

const EXTENDER = "\u0300";
const JOINER = "\u200d";
const IDEOGRAPH = "\u4e00";
const REGIONAL = "\u{1f1e6}";
const IDEOGRAPHS =
  "\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff" +
  "\u{1b000}-\u{1b16f}\u{20000}-\u{323af}";

/** Characters that stand for the characters of a class in a shape. Others, and ASCII, stand for themselves. */
const CLASSES = [
  [/^[\x00-\x7f]/u, null],
  [/^\u200d/u, JOINER],
  [/^(?:\p{M}|[\u{1f3fb}-\u{1f3ff}]|(?!\u200b)\p{Cf})/u, EXTENDER],
  [new RegExp(`^[${IDEOGRAPHS}]`, "u"), IDEOGRAPH],
  [/^\p{Nd}/u, "0"],
  [/^[\p{L}\p{N}]/u, "a"],
  [/^[\u{1f1e6}-\u{1f1ff}]/u, REGIONAL],
];

/** Rule 2 for splitting into words: the boundaries of UAX 29, with the exceptions of charlm/text/word_rules.py. */
class UnicodeRule {
  constructor() {
    this.classes = new Map();
    const [word, part, extender] = ["[a-zA-Z0-9_]", `[a-zA-Z0-9_${EXTENDER}${JOINER}]`, `[${EXTENDER}${JOINER}]`];
    const mark = `[^a-zA-Z0-9_${WHITESPACE}${EXTENDER}${JOINER}${IDEOGRAPH}]`;
    const separator = "[.,'\u2019\u066b\u066c]";
    const withinWord = "['\u2018\u2019\xb7\u0387\u055f\u05f4\u2027\uff07]";
    const negation = `[nN]['\u2019][tT](?!${part})`;
    const clitic = `['\u2019](?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])(?!${part})`;
    this.pieces = new RegExp(
      `[0-9]+(?:${separator}[0-9]+)+(?!${part})` +
        `|${word}${part}*?(?=${negation})|${negation}|${clitic}` +
        `|${word}${part}*(?:(?<![0-9_])(?!${clitic})${withinWord}(?=[a-zA-Z])${part}+)*` +
        `|${IDEOGRAPH}${extender}*|${REGIONAL}{2}` +
        `|${mark}${extender}+(?:(?<=${JOINER})${mark}${extender}*)*|(${mark})(?:\\1(?!${extender}))*` +
        `|${extender}+|[${WHITESPACE}]`,
      "gu",
    );
  }

  /** Return the character that stands for the class of a character. */
  classOf(char) {
    let found = this.classes.get(char);
    if (found === undefined) {
      const entry = CLASSES.find(([pattern]) => pattern.test(char));
      found = entry?.[1] ?? char;
      this.classes.set(char, found);
    }
    return found;
  }

  cut(chunk) {
    const chars = Array.from(chunk);
    const shape = chars.map((char) => this.classOf(char)).join("");
    let begin = 0;
    return Array.from(shape.matchAll(this.pieces), (match) => {
      const end = begin + Array.from(match[0]).length;
      const piece = chars.slice(begin, end).join("");
      begin = end;
      return piece;
    });
  }

  isWord(token) {
    return /^[a-zA-Z0-9_]/.test(this.classOf(String.fromCodePoint(token.codePointAt(0)))) && !NEGATION.test(token);
  }
}

/** Base class of the word tokenizers: vocabulary, and decoding with implied spaces. */
class SpacedTokenizer {
  constructor(data, noSpaceBefore, noSpaceAfter, texts) {
    this.kind = "word";
    this.folding = new Folding(data.lowercase, data.normalize ?? "none");
    this.tokens = data.tokens;
    this.index = new Map(data.tokens.map((token, id) => [token, id]));
    this.spaceBefore = data.tokens.map(() => true);
    this.spaceAfter = data.tokens.map(() => true);
    for (const id of noSpaceBefore) this.spaceBefore[id] = false;
    for (const id of noSpaceAfter) this.spaceAfter[id] = false;
    this.texts = data.tokens.map((token) => texts.get(token) ?? token);
  }

  decode(ids) {
    return ids
      .map((id, at) => (at && this.spaceAfter[ids[at - 1]] && this.spaceBefore[id] ? " " : "") + this.texts[id])
      .join("");
  }

  /** Return the ids of a text that will be continued, and whether they leave out its final space. */
  encodePrompt(text) {
    if (text.endsWith(" ")) {
      const ids = this.encode(text.slice(0, -1));
      if (ids.length && this.spaceAfter[ids[ids.length - 1]]) return { ids, dropsSpace: true };
    }
    return { ids: this.encode(text), dropsSpace: false };
  }
}

/** Tokenizer whose tokens are words, numbers, punctuation and newlines. */
class WordTokenizer extends SpacedTokenizer {
  constructor(data) {
    super(data, data.no_space_before, data.no_space_after, new Map([[JOIN, ""]]));
    this.rule = (data.word_rule ?? 1) === 1 ? new LetterRule() : new UnicodeRule();
    this.chunks = new Map();
  }

  encode(text) {
    const ids = [];
    let end = 0;
    for (const match of this.folding.fold(text).matchAll(/( *)(\n|[^ \n]+|$)/g)) {
      const [whole, spaces, chunk] = match;
      if (!whole) break;
      const found = chunk ? this.idsOfChunk(chunk) : [];
      const between = end && found.length;
      const implied = between && this.spaceAfter[ids[ids.length - 1]] && this.spaceBefore[found[0]];
      if (spaces && !(spaces.length === 1 && implied)) ids.push(...this.idsOf(spaces));
      for (const id of found) ids.push(id);
      end = ids.length;
    }
    return ids;
  }

  /** Return the ids of a text without spaces, with JOIN where a space would be implied. */
  idsOfChunk(chunk) {
    const known = this.chunks.get(chunk);
    if (known) return known;
    const ids = [];
    for (const id of this.rule.cut(chunk).flatMap((piece) => this.idsOf(piece))) {
      if (ids.length && this.spaceAfter[ids[ids.length - 1]] && this.spaceBefore[id]) ids.push(this.index.get(JOIN));
      ids.push(id);
    }
    this.chunks.set(chunk, ids);
    return ids;
  }

  /** Return the id of a token. An unknown run of one mark becomes the ids of the single marks. */
  idsOf(piece) {
    const id = this.index.get(piece);
    if (id !== undefined) return [id];
    const chars = Array.from(piece);
    const single = this.index.get(chars[0]);
    if (single !== undefined && !this.rule.isWord(piece) && chars.every((char) => char === chars[0])) {
      return chars.map(() => single);
    }
    return [UNKNOWN_ID];
  }

  unknownIn(text) {
    const chunks = new Set(this.folding.fold(text).split(/[ \n]/));
    const pieces = new Set([...chunks].flatMap((chunk) => this.rule.cut(chunk)));
    return [...pieces].filter((piece) => {
      const ids = this.idsOf(piece);
      return ids.length === 1 && ids[0] === UNKNOWN_ID;
    });
  }

  foldedEnds(chars, ids) {
    let end = 0;
    return ids.map((id) => {
      const token = id === UNKNOWN_ID ? null : this.tokens[id];
      if (token === JOIN) return end;
      if ((token === null || !/^ *$/.test(token)) && chars[end] === " ") end++; // the implied space
      end += token === null ? this.pieceLength(chars, end) : Array.from(token).length;
      return end;
    });
  }

  /** Return the number of characters of the piece at a position of a text. */
  pieceLength(chars, begin) {
    let end = begin + 1;
    while (end < chars.length && chars[end] !== " " && chars[end] !== "\n") end++;
    return Array.from(this.rule.cut(chars.slice(begin, end).join(""))[0]).length;
  }
}

/** Tokenizer that splits at whitespace, for text that is already tokenized. */
class WhitespaceTokenizer extends SpacedTokenizer {
  constructor(data) {
    const lineEnd = data.tokens.indexOf(LINE_END_WORD);
    super(data, [lineEnd], [lineEnd], new Map([[LINE_END_WORD, "\n"]]));
    this.lineEnd = lineEnd;
    this.index.delete(LINE_END_WORD);
  }

  encode(text) {
    const lines = this.words(text).map((words) => words.map((word) => this.index.get(word) ?? UNKNOWN_ID));
    return lines.flatMap((ids, line) => (line ? [this.lineEnd, ...ids] : ids));
  }

  words(text) {
    const lines = this.folding.fold(text).replaceAll("\0", UNKNOWN_CHAR).split("\n");
    return lines.map((line) => line.match(WORD_OR_MARK) ?? []);
  }

  unknownIn(text) {
    return [...new Set(this.words(text).flat())].filter((word) => !this.index.has(word));
  }

  foldedEnds(chars, ids) {
    const isSpace = (char) => char !== undefined && ONLY_WHITESPACE.test(char);
    let end = 0;
    return ids.map((id) => {
      while (chars[end] !== "\n" && isSpace(chars[end])) end++;
      if (id === this.lineEnd) return ++end;
      while (end < chars.length && !isSpace(chars[end])) end++;
      return end;
    });
  }
}

/** Return the tokenizer of the `tokenizer` entry of a model. */
function makeTokenizer(data) {
  if (data.kind === "char") return new CharTokenizer(data);
  return data.split === "whitespace" ? new WhitespaceTokenizer(data) : new WordTokenizer(data);
}

/** Split a text into one part for each of its tokens; joined, the parts are the text. */
function tokenTexts(tokenizer, text, ids) {
  const chars = Array.from(text);
  const folded = Array.from(tokenizer.folding.fold(text));
  const ends = tokenizer.folding.originalEnds(chars, tokenizer.foldedEnds(folded, ids));
  if (ends.length) ends[ends.length - 1] = chars.length;
  return ends.map((end, index) => chars.slice(index ? ends[index - 1] : 0, end).join(""));
}

/**
 * Return the words of a text that is split into tokens. The whitespace before a word belongs to the word, and the
 * whitespace after the last word is an entry of its own. A token counts for the word in which it ends.
 *
 * @param {string[]} texts - The text of each token.
 * @returns {{text: string, tokens: number[]}[]} The text of each word without whitespace, and indices of its tokens.
 */
function wordsOf(texts) {
  const text = texts.join("");
  const words = [];
  const wordEnds = [];
  for (const match of text.matchAll(new RegExp(`[${WHITESPACE}]*([^${WHITESPACE}]+)`, "gu"))) {
    words.push({ text: match[1], tokens: [] });
    wordEnds.push(match.index + match[0].length);
  }
  if ((wordEnds[wordEnds.length - 1] ?? 0) < text.length) {
    words.push({ text: "", tokens: [] });
    wordEnds.push(text.length);
  }
  let end = 0;
  let word = 0;
  texts.forEach((part, index) => {
    end += part.length;
    // Whitespace at the end of the text belongs to the last token if no other token stands for it.
    const isLast = index === texts.length - 1 && !ONLY_WHITESPACE.test(part);
    const textEnd = isLast ? text.replace(new RegExp(`[${WHITESPACE}]+$`, "u"), "").length : end;
    while (wordEnds[word] < textEnd) word++;
    words[word].tokens.push(index);
  });
  return words;
}
