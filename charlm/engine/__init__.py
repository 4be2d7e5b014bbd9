"""Use of trained models: model files, runs, the recurrent network in NumPy, decoding, sampling, scoring, novelty.

It imports NumPy and safetensors, but never PyTorch, whose import takes seconds.
"""
