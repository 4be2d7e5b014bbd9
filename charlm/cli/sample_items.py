"""Items of a list in `charlm sample`: which model writes them, and their form on standard output."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.cli.options import note
from charlm.cli.streams import write_text
from charlm.item_config import DEFAULT_ITEMS, ItemConfig
from charlm.sample_config import SampleConfig

if TYPE_CHECKING:
    from charlm.engine.checkpoint import Checkpoint
    from charlm.engine.item_sampler import ItemSampler
    from charlm.engine.sampler import Sampler

TEXT_SETTINGS = ("length", "lines", "count", "beam", "stop")
"""Settings that ask for a text from a model of a list, unless a setting of `ItemConfig` is given too."""


def open_item_sampler(
    path: Path, checkpoint: "Checkpoint", sampler: "Sampler", options: Mapping[str, Any]
) -> "ItemSampler | None":
    """Return the sampler of items if items are wanted, otherwise None.

    Items are wanted if a setting of items is given, or if the model was trained on a list and no setting of a text is
    given.

    Args:
        path: Model file.
        checkpoint: Its content.
        sampler: The model, and the settings of generation.
        options: Values of all options by name.
    """
    from charlm.cli.novelty import open_known_items
    from charlm.engine.item_sampler import ItemSampler, format_of_model
    from charlm.text.items import LINE, ItemFormat

    config, quiet = ItemConfig.pick(options), options["quiet"]
    form, max_tokens = format_of_model(checkpoint.metadata)
    wants_text = any(getattr(sampler.config, name) != getattr(SampleConfig, name) for name in TEXT_SETTINGS)
    if not config.any_given and (form is None or wants_text):
        return None
    if form is None:
        note("the model was not trained on a list: an item is a line", quiet=quiet)
        form = ItemFormat(kind=LINE, separator="\n")
    elif config.items is None:
        note(f"the model was trained on a list: generating {DEFAULT_ITEMS} items; set --items or -n", quiet=quiet)
    known = None
    if config.new:
        known = open_known_items(path, checkpoint, form, options)
    return ItemSampler(sampler=sampler, form=form, config=config, known=known, max_tokens=max_tokens)


def write_items(items: "ItemSampler", prompts: Sequence[str], *, with_prompt: bool) -> None:
    """Generate items and write each one, with a separator after it, as soon as it is accepted."""
    separator = items.form.separator
    try:
        for generation, text in items.stream(prompts):
            write_text(f"{generation.prompt * with_prompt}{text}{separator}")
            sys.stdout.flush()
    finally:
        if not separator.endswith("\n"):
            write_text("\n")
