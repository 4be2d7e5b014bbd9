"""Alignment of tokens with their text: which part of a text each token stands for."""

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate

from charlm.text.tokenizer import UNKNOWN_ID, Tokenizer, WordTokenizer
from charlm.text.word_rules import WordRule
from charlm.text.words import JOIN, LINE_END_WORD, SPACE

WORD = re.compile(r"[^\S\n]*\S+")
LINE_END = re.compile(r"[^\S\n]*\n")


def token_texts(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> list[str]:
    r"""Split a text into one part for each of its tokens; joined, the parts are the text.

    The whitespace before a word belongs to the word. The part of `JOIN`, which stands for a missing space, is empty.
    Whitespace that no token stands for, at the end of a text that is split at whitespace, belongs to the last token. If
    several tokens stand for one character of a text that is folded, the first one has it and the others are empty.

    Args:
        tokenizer: The tokenizer.
        text: The text.
        ids: Its token ids, as `tokenizer.encode(text)` returns them.

    Example:
        >>> from charlm.text.tokenizer import WordTokenizer
        >>> words = WordTokenizer.from_text(["the cat (a big one) sat\n"], lowercase=True)
        >>> text = "The CAT(a dog) sat"
        >>> token_texts(words, text, words.encode(text))
        ['The', ' CAT', '', '(', 'a', ' dog', ')', ' sat']
    """
    if tokenizer.kind == "char" and not tokenizer.folding.is_active:
        return list(text)
    folded = tokenizer.folding.fold(text)
    tokens = [None if token_id == UNKNOWN_ID else tokenizer.tokens[token_id] for token_id in ids]
    if isinstance(tokenizer, WordTokenizer):
        ends = list(_word_ends(tokens, folded, tokenizer.rule))
    elif tokenizer.kind == "char":
        ends = list(range(1, len(folded) + 1))
    else:
        ends = list(_whitespace_ends(tokens, folded))
    ends = tokenizer.folding.original_ends(text, ends)
    if ends:
        ends[-1] = len(text)
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def token_ends(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> list[int]:
    """Return the position in a text at which each of its tokens ends; see `token_texts`."""
    return list(accumulate(map(len, token_texts(tokenizer, text, ids))))


def _word_ends(tokens: Sequence[str | None], text: str, rule: WordRule) -> Iterator[int]:
    """Yield the end of each token of a `WordTokenizer`; None stands for an unknown token."""
    end = 0
    for token in tokens:
        if token == JOIN:
            yield end
            continue
        is_space = token is not None and not token.strip(SPACE)
        if not is_space and text.startswith(SPACE, end):
            end += 1  # the implied space
        end = rule.end(text, end) if token is None else end + len(token)
        yield end


def _whitespace_ends(tokens: Sequence[str | None], text: str) -> Iterator[int]:
    """Yield the end of each token of a `WhitespaceTokenizer`; None stands for an unknown token."""
    end = 0
    for token in tokens:
        found = (LINE_END if token == LINE_END_WORD else WORD).match(text, end)
        assert found is not None, "the ids are those of the text"
        end = found.end()
        yield end
