"""The command line: ``hcrot`` and ``python -m hcrot``. Each command is a file here; this one imports none before it is known which."""

import importlib
import io
import sys

from hcrot.tools.arguments import Parser, RawText, ending_with_the_reader, json_alone, refusing_bad_input

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "learn to draw from a folder of pictures, from MNIST, or from the digits that come with hcrot",
    "sample": "draw with what was learned: pictures, a GIF, or arrays",
    "evaluate": "how good the pictures are: Fréchet distance, precision and recall, agreement with their labels",
    "export": "write a run as a pipeline that diffusers opens",
    "info": "what a checkpoint holds, and which programs can open it",
    "check": "check the gradients of a layer or network of your own",
    "learn": "exercises that check themselves, and a bug hunt",
    "view": "a local page: draw, look inside a network, train, break it",
    "bench": "how fast this machine trains and draws, beside PyTorch if it is installed",
}

DESCRIPTION = """Train diffusion models on the CPU, and draw with them.

    hcrot train flowers                 thirty minutes with the pictures in flowers/, whose subfolders are classes
    hcrot sample runs/flowers           draw
    hcrot evaluate runs/flowers         judge
    hcrot view                          a page where a network is alive; it needs no training
"""


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says, and end the program with 0, 1 (a check failed), 2 (bad input), or 128 and the number of a signal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # its encoding may lack the é of Fréchet and the star of `learn list`
    with ending_with_the_reader():
        understand(sys.argv[1:] if arguments is None else arguments)


def understand(words: list[str]) -> None:
    """Help, the version, or a command, at whose end the program ends with its exit status."""
    listed = "\n".join(f"    {name:<10} {text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="hcrot", description=f"{DESCRIPTION}\ncommands:\n{listed}\n\nhcrot COMMAND --help explains each.", add_help=False,
        usage="hcrot COMMAND ...", formatter_class=RawText,
    )  # fmt: skip
    parser.add_argument("-h", "--help", action="help", help="show this message and end")
    parser.add_argument("--version", action="store_true", help="show the version and end")
    parser.add_argument("command", nargs="?", choices=list(COMMANDS), metavar="COMMAND", help="one of those above")
    first = parser.parse_args(words[:1])
    if first.version:
        from hcrot import __version__

        print(f"hcrot {__version__}")
    elif first.command is None:
        parser.print_help()
    else:
        sys.exit(run(first.command, words[1:]))


def run(command: str, words: list[str]) -> int:
    """One command; its exit status."""
    from hcrot.tools.stopping import end_on_signals

    end_on_signals()
    module = importlib.import_module(f"hcrot.commands.{command}")
    parser = Parser(prog=f"hcrot {command}", description=module.__doc__, formatter_class=RawText)
    module.add_arguments(parser)
    options = parser.parse_args(words)
    try:
        with refusing_bad_input(f"hcrot {command}"), json_alone(getattr(options, "json", False)):
            if command != "train" and not getattr(options, "count", None):
                refuse_ranks()
            return module.run(options) or 0
    except KeyboardInterrupt:
        return 130


def refuse_ranks() -> None:
    """Of a command that does not share its work among processes.

    Raises:
        ValueError: mpiexec has started several.
    """
    from hcrot.training.distributed import one_process

    with one_process("several share the work of hcrot train and of hcrot sample --count only"):
        pass
