"""A second reader of model files, written from docs/checkpoint-format.md alone.

It imports nothing of charlm. It is slow, because it is meant to be read.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from unicodedata import category, normalize

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
ENDINGS = ("n't", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def is_word(char: str) -> bool:
    return char == "_" or category(char)[0] in "LN"


def is_digit(char: str) -> bool:
    return category(char) == "Nd"


def end_of_run(text: str, begin: int, fits: Callable[[str], bool]) -> int:
    return next((place for place in range(begin, len(text)) if not fits(text[place])), len(text))


def end_of_ending(text: str, begin: int, ending: str) -> int:
    """Return the end of an ending such as n't at a position; 0 if it is not there, or a word character follows."""
    end = begin + len(ending)
    found = text[begin:end].lower().replace("\u2019", "'").replace("\u017f", "s")
    return end if found == ending and not is_word(text[end : end + 1] or " ") else 0


def end_of_number(text: str, begin: int) -> int:
    """Return the end of the longest number with separators at a position; 0 if there is none."""
    longest, end = 0, end_of_run(text, begin, is_digit)
    while begin < end < len(text) - 1 and text[end] in ".," and is_digit(text[end + 1]):
        end = end_of_run(text, end + 1, is_digit)
        longest = longest if is_word(text[end : end + 1] or " ") else end
    return longest


def pieces(chunk: str) -> Iterator[str]:
    """Cut a chunk into pieces, by the seven rules."""
    begin = 0
    while begin < len(chunk):
        char, word = chunk[begin], end_of_run(chunk, begin, is_word)
        ends = [end_of_number(chunk, begin)]
        ends += [place for place in range(begin + 1, word) if end_of_ending(chunk, place, "n't")]
        ends += [end_of_ending(chunk, begin, ending) for ending in ENDINGS]
        ends += [word if word > begin else 0]
        if not char.isspace():
            ends += [end_of_run(chunk, begin, lambda other, char=char: other.lower() == char.lower())]
        end = next((end for end in ends if end), begin + 1)
        yield chunk[begin:end]
        begin = end


IDEOGRAPHS = (
    *((0x3005, 0x3007), (0x3021, 0x3029), (0x3041, 0x3096), (0x309D, 0x309F), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),
    *((0xF900, 0xFAFF), (0x1B000, 0x1B16F), (0x20000, 0x323AF)),
)
LETTERS_OF_ENDINGS = "nNtTsSrReEvVmMlLdD"


def kind(char: str) -> str:
    """Return the kind of a character by the rules of `word_rule` 2: e, i, d, l, space, r (regional), mark or _."""
    point, group = ord(char), category(char)
    if group[0] == "M" or point == 0x200D or 0x1F3FB <= point <= 0x1F3FF or (group == "Cf" and point != 0x200B):
        return "e"
    if any(first <= point <= last for first, last in IDEOGRAPHS):
        return "i"
    if group[0] in "LN":
        return "d" if group == "Nd" else "l"
    return "_" if char == "_" else "space" if char.isspace() else "r" if 0x1F1E6 <= point <= 0x1F1FF else "mark"


class UnicodePieces:
    """Pieces of a chunk by the eleven rules of `word_rule` 2."""

    def __init__(self, chunk: str) -> None:
        self.chunk, self.kinds = chunk, [*map(kind, chunk)]

    def __iter__(self) -> Iterator[str]:
        begin = 0
        while begin < len(self.chunk):
            end = next(end for end in self.ends(begin) if end > begin)
            yield self.chunk[begin:end]
            begin = end

    def ends(self, begin: int) -> Iterator[int]:
        """Yield the end by each rule; 0 if the rule does not fit."""
        yield self.number(begin)
        word = self.word(begin)
        yield next((place for place in range(begin + 1, word) if self.ending(place, "n't")), 0)
        yield from (self.ending(begin, ending) for ending in ENDINGS)
        yield self.joined(word) if word else 0
        yield self.run(begin + 1, "e") if self.kinds[begin] == "i" else 0
        yield begin + 2 if self.kinds[begin : begin + 2] == ["r", "r"] else 0
        yield from (self.extended(begin), self.repeated(begin), self.run(begin, "e"), begin + 1)

    def run(self, begin: int, kinds: str) -> int:
        return next(
            (place for place in range(begin, len(self.kinds)) if self.kinds[place] not in kinds), len(self.kinds)
        )

    def is_kind(self, place: int, *kinds: str) -> bool:
        return place < len(self.kinds) and self.kinds[place] in kinds

    def word(self, begin: int) -> int:
        return self.run(begin, "dl_e") if self.is_kind(begin, "d", "l", "_") else 0

    def joined(self, end: int) -> int:
        while end < len(self.chunk) - 1 and self.chunk[end] in "'\u2019\u2018\u00b7\u0387\u055f\u05f4\u2027\uff07":
            clitic = any(self.ending(end, ending) for ending in ENDINGS[1:])
            if clitic or self.kinds[end - 1] in "d_" or self.kinds[end + 1] != "l":
                break
            end = self.run(end + 1, "dl_e")
        return end

    def ending(self, begin: int, ending: str) -> int:
        end, found = begin + len(ending), self.chunk[begin : begin + len(ending)]
        fits = found.replace("\u2019", "'").lower() == ending and all(
            c in LETTERS_OF_ENDINGS + "'\u2019" for c in found
        )
        return end if fits and not self.is_kind(end, *"dl_e") else 0

    def number(self, begin: int) -> int:
        longest, end = 0, self.run(begin, "d")
        while end > begin and end < len(self.chunk) and self.chunk[end] in ".,'\u2019\u066b\u066c":
            if not self.is_kind(end + 1, "d"):
                break
            end = self.run(end + 1, "d")
            longest = longest if self.is_kind(end, *"dl_e") else end
        return longest

    def extended(self, begin: int) -> int:
        if not self.is_kind(begin, "mark", "r") or not self.is_kind(begin + 1, "e"):
            return 0
        end = self.run(begin + 1, "e")
        while self.chunk[end - 1] == "\u200d" and self.is_kind(end, "mark", "r"):
            end = self.run(end + 1, "e")
        return end

    def repeated(self, begin: int) -> int:
        end = begin + 1
        while self.is_kind(begin, "mark", "r") and self.chunk[begin] == self.chunk[end : end + 1]:
            if self.is_kind(end + 1, "e"):
                break
            end += 1
        return end if self.is_kind(begin, "mark", "r") else 0


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


class SecondReader:
    """A model file: its tokenizer as `encode`, and its scores as `costs`."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        begin = 8 + struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:begin])
        strings = header.pop("__metadata__")
        self.config, self.tokenizer = json.loads(strings["config"]), json.loads(strings["tokenizer"])
        self.context_lengths = json.loads(strings.get("adapt", "{}")).get("context_lengths")
        self.ngram = json.loads(strings.get("ngram", "{}"))
        self.spelling_chars = json.loads(strings.get("spelling", "{}")).get("chars")
        self.tensors = {}
        for name, entry in header.items():
            values = np.frombuffer(data[begin:][slice(*entry["data_offsets"])], DTYPES[entry["dtype"]])
            self.tensors[name] = values.reshape(entry["shape"]).astype(np.float32)
        tokens = self.tokenizer.get("tokens") or ["", *self.tokenizer["chars"]]
        self.index = {token: token_id for token_id, token in enumerate(tokens) if token_id}
        self.no_space_before, self.no_space_after = (
            set(self.tokenizer.get(name, ())) for name in ("no_space_before", "no_space_after")
        )

    def encode(self, text: str) -> list[int]:
        form = self.tokenizer.get("normalize", "none")
        for change in (
            ((lambda text: text), str.lower) if self.tokenizer.get("lowercase", False) else ((lambda text: text),)
        ):
            text = change(text) if form == "none" else normalize(form, change(text))
        if self.tokenizer["kind"] == "char":
            return [self.index.get(char, 0) for char in text]
        return self.encode_split(text) if self.tokenizer["split"] == "whitespace" else self.encode_words(text)

    def encode_split(self, text: str) -> list[int]:
        line_end = self.index["<eos>"]
        known = self.index | {"<eos>": 0}
        lines = [[known.get(word, 0) for word in line.split()] for line in text.replace("\0", "\ufffd").split("\n")]
        return [token_id for line in lines for token_id in (*line, line_end)][:-1]

    def encode_words(self, text: str) -> list[int]:
        chunks = re.findall("\n| +|[^ \n]+", text)
        parts = [self.ids_of_chunk(chunk) for chunk in chunks]
        for place in range(1, len(parts) - 1):
            if chunks[place] == " " and self.implies_space(parts[place - 1][-1], parts[place + 1][0]):
                parts[place] = []
        return [token_id for part in parts for token_id in part]

    def ids_of_chunk(self, chunk: str) -> list[int]:
        if chunk.startswith(" "):
            return self.ids_of_piece(chunk)
        ids: list[int] = []
        cut = UnicodePieces if self.tokenizer.get("word_rule", 1) == 2 else pieces
        for token_id in (token_id for piece in cut(chunk) for token_id in self.ids_of_piece(piece)):
            ids += [self.index["<join>"]] * (bool(ids) and self.implies_space(ids[-1], token_id)) + [token_id]
        return ids

    def ids_of_piece(self, piece: str) -> list[int]:
        mark, is_run = piece[0], piece == piece[0] * len(piece) and not is_word(piece[0])
        if piece not in self.index and is_run and mark in self.index:
            return [self.index[mark]] * len(piece)
        return [self.index.get(piece, 0)]

    def implies_space(self, left: int, right: int) -> bool:
        return left not in self.no_space_after and right not in self.no_space_before

    def costs(self, text: str) -> list[float]:
        """Return the negative log-probability of each token of a text, in nats."""
        ids = self.encode("\n" + text)
        size = self.config["vocab_size"]
        has_network = self.config["cell"] != "ngram"
        networks = self.network_probs(ids[:-1]) if has_network else (np.zeros(size) for _ in ids[1:])
        costs = []
        for end, network in enumerate(networks, start=1):
            counts = self.ngram_probs("ngram/", size, tuple(ids[:end])) if self.ngram else np.zeros(size)
            costs.append(-math.log(self.interpolate(network, counts)[ids[end]]))
        return costs

    def interpolate(self, network: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the probabilities of all tokens from those by the network and by the n-gram model."""
        if "gate" not in self.ngram:
            weight = self.ngram.get("weight", 0)
            return (1 - weight) * network + weight * counts
        roots = np.sqrt(network * counts)
        h1, h2, d = (-math.log(total) for total in ((network**2).sum(), (counts**2).sum(), roots.sum()))
        s2, s3 = (a0 + a1 * h1 + a2 * h2 + a3 * d for a0, a1, a2, a3 in self.ngram["gate"])
        w1 = 1 / (1 + math.exp(s2) + math.exp(s3))
        return w1 * network + math.exp(s2) * w1 * counts + math.exp(s3) * w1 * roots / roots.sum()

    def network_probs(self, ids: list[int]) -> Iterator[np.ndarray]:
        """Yield the probabilities of all tokens after each token by the network."""
        layers, size = range(self.config["num_layers"]), self.config["hidden_size"]
        states = [[np.zeros(size, np.float32), np.zeros(size, np.float32)] for _ in layers]
        for token_id in ids:
            x, total = self.tensors["embedding.weight"][token_id], np.zeros(size, np.float32)
            for layer in layers:
                x = self.step(layer, x, states[layer])
                total = total + x
            decoder = self.tensors["embedding.weight" if self.config["tie_weights"] else "decoder.weight"]
            y = total if self.config.get("skip_connections") else x
            logits = (decoder @ y + self.tensors["decoder.bias"]).astype(np.float64)
            yield np.exp(logits - np.logaddexp.reduce(logits))

    def adaptive_costs(self, text: str) -> list[float]:
        """Return the costs of the tokens of a text that is a document, in nats."""
        ids: list[int | None] = [None] * 32 + self.encode("\n" + text)
        first, costs = 33, []
        for place, cost in enumerate(self.costs(text), start=first):
            prob = math.exp(-cost)
            for row, length in enumerate(self.context_lengths):
                context = ids[place - length : place]
                after = [ids[end] for end in range(first, place) if ids[end - length : end] == context]
                if after:
                    n, m = len(after), len(set(after))
                    gain = float(self.tensors["adapt/gains"][row, min(n.bit_length() - 1, 7), min(m, 4) - 1])
                    prob = (1 - gain) * prob + gain * after.count(ids[place]) / n
            costs.append(-math.log(prob))
        return costs

    def spelling_cost(self, text: str) -> float:
        """Return the cost of the spelling of an unknown token in nats."""
        if self.tokenizer["kind"] == "char":
            return math.log(1114112 - (self.config["vocab_size"] - 1))
        if self.spelling_chars is None:
            return 0.0
        symbols = ["", "\n", *self.spelling_chars]
        numbers = [symbols.index(char) if char in symbols else 0 for char in f"\n{text}\n"]
        size = len(symbols)
        probs = [
            self.ngram_probs("spelling/", size, tuple(numbers[:end]))[numbers[end]] for end in range(1, len(numbers))
        ]
        return -math.fsum(map(math.log, probs)) + numbers.count(0) * math.log(1114112 - (size - 1))

    def ngram_probs(self, prefix: str, size: int, context: tuple[int, ...]) -> np.ndarray:
        """Return p(w | h) for all w by the n-gram model whose tensors have a prefix."""
        order = sum(name.startswith(f"{prefix}weights.") for name in self.tensors)
        context = context[max(0, len(context) - order + 1) :]
        lower = self.ngram_probs(prefix, size, context[1:]) if context else np.full(size, 1 / size)
        entries = self.ngram_entries(prefix, size, context)
        if entries is None:
            return lower
        weights = self.tensors[f"{prefix}weights.{len(context) + 1}"][entries.start : entries.stop].tolist()
        tokens = range(len(weights))
        if context:
            tokens = self.tensors[f"{prefix}tokens.{len(context) + 1}"][entries.start : entries.stop].astype(int)
        probs = (1 - math.fsum(weights)) * lower
        for token, weight in zip(tokens, weights, strict=True):
            probs[token] += weight
        return probs

    def ngram_entries(self, prefix: str, size: int, context: tuple[int, ...]) -> range | None:
        """Return the indices of the n-grams with a context; None if the context itself is not stored."""
        if not context:
            return range(size)
        number: int | None = context[0]
        for order in range(2, len(context) + 1):
            parents = self.ngram_entries(prefix, size, context[: order - 1])
            tokens = self.tensors[f"{prefix}tokens.{order}"]
            number = next((i for i in parents or () if tokens[i] == context[order - 1]), None)
            if number is None:
                return None
        counts = self.tensors[f"{prefix}counts.{len(context) + 1}"]
        begin = int(counts[:number].sum())
        return range(begin, begin + int(counts[number]))

    def step(self, layer: int, x: np.ndarray, state: list[np.ndarray]) -> np.ndarray:
        """Compute one layer for one token. The state, h and c, is updated."""
        w_ih, w_hh, b_ih, b_hh = (
            self.tensors[f"core.layers.{layer}.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h, c = state
        a, b = (w_ih @ x + b_ih).reshape(-1, len(h)), (w_hh @ h + b_hh).reshape(-1, len(h))
        if self.config["cell"] == "lstm":
            (i, f, _, o), g = sigmoid(a + b), np.tanh(a[2] + b[2])
            c = f * c + i * g
            h = o * np.tanh(c)
        elif self.config["cell"] == "gru":
            r, z = sigmoid(a[:2] + b[:2])
            h = (1 - z) * np.tanh(a[2] + r * b[2]) + z * h
        else:
            h = np.tanh(a[0] + b[0])
        state[:] = h, c
        return h
