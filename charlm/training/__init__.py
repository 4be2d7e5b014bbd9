"""Everything that learns: networks, losses, the dataset, the planner, the trainer and its saved state.

Modules import PyTorch at the top only if every use of them needs it.
"""
