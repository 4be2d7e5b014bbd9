"""Character- and word-level recurrent language models on the command line.

The package has three storeys, each of which imports only from itself and from those below:

- text: `errors`, `config`, `words`, `tokenizer`, `glove`, `library`, `corpus`
- engine, a trained model at work in NumPy: `checkpoint`, `runs`, `curves`, `engine`, `sampler`, `scorer`
- training, with PyTorch: `loss`, `model`, `batches`, `plan`, `precision`, `trainer`, `lessons`

`charlm.cli`, the command line, stands above all three.
"""

__version__ = "0.1.0"
