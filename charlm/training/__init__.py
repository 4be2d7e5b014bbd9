"""Training of models.

Here belong networks, losses, datasets, the planner, the training loop and its saved state. Modules of this folder
import PyTorch at the top only if every use of them needs it.
"""
