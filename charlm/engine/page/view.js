// Elements of the page that show probabilities: the bars of the next tokens, and the map of surprisal.
//
// Text reaches the page as the content of text nodes only, never as HTML.

"use strict";

const NUM_BARS = 12;

/** Lower bounds, in bits per character, of the levels of surprisal above the first, and the labels of all levels. */
const LEVELS = [1, 2, 4, 6, 9];
const LABELS = ["below 1", "1-2", "2-4", "4-6", "6-9", "9 or more"];

function levelOf(bits) {
  return LEVELS.filter((bound) => bits >= bound).length;
}

/** Return a new element with a text. */
function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

/** Return a text on one line, in which whitespace and characters that cannot be seen are shown. */
function shown(text) {
  const marks = { " ": "\u2423", "\n": "\u21b5", "\t": "\u21e5", "\r": "\u240d" };
  const hidden = /[ \n\t\r]|[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;
  const number = (char) => char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return text.replace(hidden, (char) => marks[char] ?? `U+${number(char)}`);
}

/** Return the name of a token for people who listen to the page. */
function spoken(text) {
  const names = { " ": "space", "\n": "new line", "\t": "tab" };
  return names[text] ?? (/^\n+$/.test(text) ? "new lines" : shown(text));
}

function percent(prob) {
  const value = 100 * prob;
  if (value > 0 && value < 0.01) return `${value.toExponential(1)} %`;
  return `${value.toFixed(value < 10 ? 2 : 1)} %`;
}

/** List of the most probable next tokens. Each is a button with a bar. */
class Bars {
  /**
   * @param {HTMLElement} list
   * @param {function(number)} choose - Called with the id of a token that is clicked.
   */
  constructor(list, choose) {
    this.rows = Array.from({ length: NUM_BARS }, () => {
      const button = element("button");
      button.type = "button";
      const [item, bar, token, prob] = [element("li"), element("span", "", "bar"), element("span"), element("span")];
      const row = { item, button, bar, token, prob };
      bar.setAttribute("aria-hidden", "true");
      button.append(bar, token, " ", prob);
      button.addEventListener("click", () => choose(row.id));
      item.append(button);
      list.append(item);
      return row;
    });
  }

  show(ranking) {
    this.rows.forEach((row, index) => {
      row.item.hidden = index >= ranking.length;
      if (row.item.hidden) return;
      const { id, token, prob } = ranking[index];
      row.id = id;
      row.token.textContent = shown(token);
      row.prob.textContent = percent(prob);
      row.bar.style.width = `${100 * prob}%`;
      if (spoken(token) === token) row.button.removeAttribute("aria-label");
      else row.button.setAttribute("aria-label", `${spoken(token)} ${percent(prob)}`);
    });
  }
}

/** Text painted by surprisal. Pointer and arrow keys choose a token, whose numbers are shown. */
class SurprisalMap {
  constructor(area, legend, detail) {
    Object.assign(this, { area, detail, tokens: [], words: [], wordAt: [], chosen: -1 });
    LABELS.forEach((label, level) => legend.append(element("span", label, `s${level}`)));
    area.addEventListener("pointerover", ({ target }) => this.choose(this.indexOf(target)));
    area.addEventListener("click", ({ target }) => this.choose(this.indexOf(target)));
    area.addEventListener("focus", () => this.choose(Math.max(this.chosen, 0)));
    area.addEventListener("keydown", (event) => this.move(event));
  }

  indexOf(target) {
    return target.dataset?.token === undefined ? -1 : Number(target.dataset.token);
  }

  clear() {
    this.area.replaceChildren();
    Object.assign(this, { tokens: [], words: [], wordAt: [], chosen: -1, spans: [] });
    this.detail.textContent = "";
  }

  /** Append tokens of a text that is scored; see `scoreTokens`. */
  add(tokens) {
    const spans = tokens.map(({ text, nats }, index) => {
      const span = element("span", text.replaceAll("\n", "\u21b5\n"), `s${levelOf(bitsPerChar(nats, text))}`);
      span.dataset.token = this.tokens.length + index;
      return span;
    });
    this.area.append(...spans);
    for (const token of tokens) this.tokens.push(token);
    this.spans.push(...spans);
  }

  /** Note the words of a text that is complete, which begins with the token of this index. */
  addWords(begin) {
    const texts = this.tokens.slice(begin).map(({ text }) => text);
    for (const word of wordsOf(texts)) {
      const tokens = word.tokens.map((index) => begin + index);
      const nats = tokens.reduce((sum, index) => sum + this.tokens[index].nats, 0);
      for (const index of tokens) this.wordAt[index] = this.words.length;
      const length = tokens.reduce((sum, index) => sum + numChars(this.tokens[index].text), 0);
      this.words.push({ text: word.text, nats, length, numTokens: tokens.length });
    }
  }

  /** Paint each token by its own surprisal, or by that of its word. */
  paint(byWord) {
    this.spans.forEach((span, index) => {
      const { nats, text } = this.tokens[index];
      const word = this.words[this.wordAt[index]];
      const bits = byWord ? word.nats / Math.LN2 / Math.max(1, word.length) : bitsPerChar(nats, text);
      span.className = `s${levelOf(bits)}${index === this.chosen ? " chosen" : ""}`;
    });
  }

  choose(index) {
    if (index < 0 || index >= this.wordAt.length) return;
    this.spans[this.chosen]?.classList.remove("chosen");
    this.chosen = index;
    this.spans[index].classList.add("chosen");
    this.spans[index].scrollIntoView({ block: "nearest" });
    const { text, nats, spelling, isUnknown } = this.tokens[index];
    const word = this.words[this.wordAt[index]];
    const name = spoken(text.trim() || text) || "no space";
    const parts = [`${name}: probability ${percent(Math.exp(spelling - nats))}, ${bits(nats)}`];
    if (isUnknown) parts.push(spelling ? `unknown, of which spelling ${bits(spelling)}` : "unknown");
    if (word.text && word.numTokens > 1) parts.push(`word "${shown(word.text)}": ${bits(word.nats)}`);
    this.detail.textContent = parts.join("; ");
  }

  move(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.choose(Math.min(Math.max(this.chosen + steps[event.key], 0), this.wordAt.length - 1));
  }
}

function numChars(text) {
  return Array.from(text).length;
}

function bitsPerChar(nats, text) {
  return nats / Math.LN2 / Math.max(1, numChars(text));
}

function bits(nats) {
  return `${(nats / Math.LN2).toFixed(2)} bits`;
}
