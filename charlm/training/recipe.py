"""Formulas and constants of the training recipe, with the evidence for each."""

AUTOMATIC = {
    "min_count": "2, or 1 in a short text or one split at whitespace",
    "num_layers": "grows with the budget",
    "hidden_size": "grows with the budget",
    "dropout": "grows with the number of epochs",
}
"""How settings are chosen that are not given, for the help of `charlm train`."""
