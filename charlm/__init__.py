"""Character- and word-level recurrent language models."""

from charlm._version import __version__ as __version__
