"""Text to token ids and back: tokenizers, corpora, encodings, the cache of ids, files of word vectors.

Imports no other package than NumPy.
"""
