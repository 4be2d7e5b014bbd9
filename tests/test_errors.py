from charlm.errors import ConfigError, Note


def test_a_message_uses_the_names_of_the_front_end() -> None:
    error = ConfigError("top_k 0 of top_k_model: set top_k or beam", fields=["top_k", "beam", "seed"])
    assert error.worded({"top_k": "--top-k", "beam": "--beam"}) == "--top-k 0 of top_k_model: set top_k or --beam"
    assert error.worded({}) == str(error)


def test_a_field_inside_a_path_stays() -> None:
    for path in ("errors.log", "my/errors", "old-errors", "errors/x", ".errors"):
        error = ConfigError(f"{path}: not valid utf-8; set errors.", fields=["errors"])
        assert error.worded({"errors": "--errors"}) == f"{path}: not valid utf-8; set --errors."


def test_a_field_in_backticks_is_replaced_where_it_is_an_ordinary_word_too() -> None:
    error = ConfigError("no model here: set `model`", fields=["model"])
    assert error.worded({"model": "--model"}) == "no model here: set --model"


def test_a_name_of_the_front_end_is_literal_text() -> None:
    assert ConfigError("path x", fields=["path"]).worded({"path": r"\1\g<0>"}) == r"\1\g<0> x"


def test_a_note_uses_the_names_of_the_front_end() -> None:
    note = Note("a list of items; set `items` to none", fields=["items"])
    assert note.worded({"items": "--items"}) == "a list of items; set --items to none"
    assert note == "a list of items; set `items` to none"
