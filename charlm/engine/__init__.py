"""Use of trained models, without PyTorch.

Here belong model files, runs, the recurrent network in NumPy, decoding, sampling, scoring and the detection of copied
text. Modules of this folder import no third-party packages other than NumPy and safetensors, because importing PyTorch
takes seconds.
"""
