"""Entry point of `python -m charlm`, which is the same as the command `charlm`."""

from charlm.cli import main

if __name__ == "__main__":
    main(prog_name="charlm")
