"""``python -m hcrot``."""

from hcrot.commands import main

__all__: list[str] = []

main()
