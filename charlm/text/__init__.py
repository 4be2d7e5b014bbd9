"""Text to token ids and back: tokenizers, corpora, encodings, the cache of ids, word-vector files.

Imports nothing but NumPy.
"""
