// The page: reads the settings, writes text in slices of time so that the page stays responsive, and scores texts.

"use strict";

/** Time for which the page computes before the browser may draw and react, in milliseconds. */
const SLICE_MS = 24;

/** Time after which the next tokens of a prompt are shown, so that typing is not slowed down, in milliseconds. */
const PREVIEW_MS = 250;

const byId = (id) => document.getElementById(id);

/** Let the browser draw and react to the user. A hidden page has no animation frames. */
function nextFrame() {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 100);
    requestAnimationFrame(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** Writing of text: the form, the text and the bars. */
class Writer {
  constructor(model, unit) {
    this.model = model;
    this.unit = unit;
    this.isRunning = false;
    this.bars = new Bars(byId("next"), (id) => this.append(id));
    byId("write").addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
      this.run();
    });
    byId("stop").addEventListener("click", () => (this.isRunning = false));
    byId("resume").addEventListener("click", () => this.run());
    byId("step").addEventListener("click", () => this.step());
    for (const name of ["prompt", "seed"]) byId(name).addEventListener("input", () => this.previewSoon(name));
    for (const name of ["temperature", "top-p"]) {
      byId(name).addEventListener("input", () => (byId(`${name}-value`).value = Number(byId(name).value)));
    }
    this.start();
  }

  /** Begin a text after the prompt. */
  start() {
    const prompt = byId("prompt").value;
    const given = byId("seed").validity.valid ? byId("seed").value : "";
    this.seed = given || String(crypto.getRandomValues(new Uint32Array(1))[0] >>> 1);
    this.isStale = false;
    this.cut = ""; // what the text to stop at has cut off
    this.generation = new Generation(this.model, { prompt, seed: this.seed });
    const unknown = this.model.tokenizer.unknownIn(foldLineEnds(prompt));
    this.note = unknown.length ? ` Not in the vocabulary: ${unknown.slice(0, 10).map(shown).join(" ")}` : "";
    byId("text").replaceChildren(element("span", prompt, "given"));
    this.written = document.createTextNode("");
    byId("text").append(this.written);
    byId("resume").disabled = true;
    byId("status").textContent = this.note.trim();
    this.show();
  }

  /** Begin again when a prompt has changed, or the seed of a text that is empty. */
  previewSoon(name) {
    if (this.isRunning || (name === "seed" && this.generation.numTokens)) return;
    this.isStale = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.isStale && this.start(), PREVIEW_MS);
  }

  settings() {
    return { temperature: Number(byId("temperature").value), topP: Number(byId("top-p").value) };
  }

  /** Write until the maximum length, the text to stop at, or the button. */
  async run() {
    if (this.isRunning) return;
    if (this.isStale) this.start();
    const stopText = byId("stop-text").value.replaceAll("\\n", "\n").replaceAll("\\t", "\t");
    const begin = this.written.data.length;
    let left = Math.max(1, Number(byId("length").value));
    this.setRunning(true);
    byId("status").textContent = `Writing.${this.note}`;
    let text = this.cut;
    const searched = text.length;
    this.cut = "";
    while (this.isRunning && left > 0) {
      const end = performance.now() + SLICE_MS;
      while (this.isRunning && left > 0 && performance.now() < end) {
        text += this.generation.next(this.settings());
        left--;
        const found = stopText ? text.indexOf(stopText, searched) : -1;
        if (found >= 0) {
          this.cut = text.slice(found);
          text = text.slice(0, found);
          this.isRunning = false;
        }
      }
      this.written.data = this.written.data.slice(0, begin) + text;
      this.show();
      await nextFrame();
    }
    this.setRunning(false);
    this.report();
  }

  /** Write one token that is drawn. */
  step() {
    if (this.isStale) this.start();
    this.write(this.generation.next(this.settings()));
  }

  /** Write a token that the user chooses. */
  append(id) {
    if (!this.isRunning && !this.isStale) this.write(this.generation.append(id));
  }

  write(text) {
    this.written.appendData(this.cut + text);
    this.cut = "";
    byId("resume").disabled = false;
    this.show();
  }

  show() {
    this.bars.show(this.generation.ranking());
    const area = byId("text");
    area.scrollTop = area.scrollHeight;
  }

  report() {
    const count = this.generation.numTokens;
    const counted = `${count.toLocaleString("en")} ${this.unit}${count === 1 ? "" : "s"}`;
    byId("status").textContent = `Wrote ${counted}, seed ${this.seed}.${this.note}`;
  }

  setRunning(isRunning) {
    this.isRunning = isRunning;
    byId("stop").disabled = !isRunning;
    byId("start").disabled = byId("step").disabled = byId("resume").disabled = byId("prompt").readOnly = isRunning;
  }
}

/** Scoring of a text: the form and the map. */
class Reader {
  constructor(model) {
    this.model = model;
    this.run = 0;
    this.map = new SurprisalMap(byId("map"), byId("legend"), byId("detail"));
    byId("by-line").checked = model.separator !== null;
    byId("paint").addEventListener("submit", (event) => {
      event.preventDefault();
      this.read();
    });
    byId("by-word").addEventListener("change", () => this.map.paint(byId("by-word").checked));
  }

  async read() {
    const run = ++this.run;
    const text = foldLineEnds(byId("given").value);
    this.map.clear();
    byId("map").hidden = byId("legend").hidden = byId("detail").hidden = !text;
    byId("score").textContent = text ? "Reading." : "Type or paste a text first.";
    let nats = 0;
    for (const part of byId("by-line").checked ? (text.match(/[^\n]*\n|[^\n]+$/g) ?? []) : [text]) {
      const begin = this.map.tokens.length;
      const scores = scoreTokens(this.model, part);
      for (let tokens = this.slice(scores); tokens.length; tokens = this.slice(scores)) {
        nats += tokens.reduce((sum, token) => sum + token.nats, 0);
        this.map.add(tokens);
        await nextFrame();
        if (run !== this.run) return; // another text is being read
      }
      this.map.addWords(begin);
    }
    this.map.paint(byId("by-word").checked);
    this.report(text, nats);
  }

  /** Return the scores of the tokens that can be computed in one slice of time. */
  slice(scores) {
    const tokens = [];
    const end = performance.now() + SLICE_MS;
    while (performance.now() < end) {
      const { value, done } = scores.next();
      if (done) break;
      tokens.push(value);
    }
    return tokens;
  }

  report(text, nats) {
    if (!text) return;
    const length = numChars(text);
    const unknown = this.map.tokens.filter(({ isUnknown }) => isUnknown).length;
    byId("score").textContent =
      `${length.toLocaleString("en")} characters, ${(nats / Math.LN2 / length).toFixed(4)} bits per character` +
      (unknown ? `, ${unknown.toLocaleString("en")} unknown` : "");
  }
}

function main() {
  const header = JSON.parse(byId("model").textContent);
  const numbers = byId("numbers");
  const model = new Model(header, numbers.textContent);
  numbers.remove();
  document.title = header.name;
  byId("name").textContent = header.name;
  byId("facts").textContent = header.facts.join(" \u00b7 ");
  const unit = header.tokenizer.kind === "char" ? "character" : "word";
  for (const place of document.querySelectorAll(".unit")) place.textContent = `${unit}s`;
  for (const place of document.querySelectorAll(".one-unit")) place.textContent = unit;
  new Writer(model, unit);
  new Reader(model);
}

main();
