"""``python -m hcrot``."""

from hcrot.commands import main

main()
