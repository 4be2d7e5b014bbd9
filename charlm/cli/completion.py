"""Command `charlm completion`."""

import click

from charlm.cli.options import command

BASH_SCRIPT = """\
%(complete_func)s() {
    local response type value
    local IFS=$'\\n'

    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete $1)

    while IFS=',' read -r type value; do
        if [[ $type == 'dir' ]]; then
            compopt -o filenames -o default
            COMPREPLY+=($(compgen -d -- "$value"))
        elif [[ $type == 'file' ]]; then
            compopt -o filenames -o default
            COMPREPLY+=($(compgen -f -- "$value"))
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("$value")
        fi
    done <<< "$response"

    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
"""Script for bash. Unlike click's, it completes names of runs and of files at the same place."""


@command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which a shell completes charlm's command lines.

    It completes commands, options, runs, included models, named corpora, lessons and files. bash must have version 4.4
    or later. In ~/.zshrc, the script must stand after compinit.

    \b
    Example:
      charlm completion bash >> ~/.bashrc
      charlm completion zsh >> ~/.zshrc
      charlm completion fish > ~/.config/fish/completions/charlm.fish
    """
    from click.shell_completion import get_completion_class

    from charlm.cli import main

    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells of the argument"
    complete = kind(main, {}, "charlm", "_CHARLM_COMPLETE")
    template = BASH_SCRIPT if shell == "bash" else complete.source_template
    template = template.replace('split ","', 'split -m 1 ","')  # fish: a comma in a description is part of it
    click.echo(template % complete.source_vars(), nl=False)
