"""Character- and word-level recurrent language models on the command line.

The package has three storeys, each of which imports only from itself and from those below:

- text: `errors`, `config`, `terminal`, `ids`, `words`, `characters`, `tokenizer`, `glove`, `library`, `sources`,
  `lines`, `corpus`, `idcache`
- engine, a trained model at work in NumPy: `tensorfile`, `checkpoint`, `runs`, `curves`, `engine`, `decoding`,
  `sampler`, `beam`, `novelty`, `scorer`
- training, with PyTorch: `loss`, `model`, `batches`, `plan`, `pace`, `stopwatch`, `parallel`, `resume`,
  `validation`, `trainer`, `lessons`

`charlm.cli`, the command line, stands above all three.
"""

__version__ = "0.1.0"
