"""Use of trained models, without PyTorch.

Here belong model files, runs, the recurrent network in NumPy, n-gram models, mixtures of both, decoding, sampling,
scoring and the detection of copied text. Sampling and scoring use a model only through `predictor.Predictor`. Modules
of this folder import no third-party packages other than NumPy and safetensors, because importing PyTorch takes seconds.
"""
