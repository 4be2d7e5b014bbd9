"""Conversion between text and token ids.

Here belong tokenizers, corpora, encodings, the cache of token ids, and files of word vectors. Modules of this folder
import neither other folders of charlm nor third-party packages other than NumPy.
"""
