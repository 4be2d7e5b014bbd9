"""Everything that uses a trained model: model files, runs, the recurrent network in NumPy, decoding, sampling, scoring.

Imports NumPy and safetensors, and never PyTorch: importing it takes seconds.
"""
