"""What a network does while it runs: `hcrot.summary`, `hcrot.profile`, `hcrot.watch`, all on one mechanism, in ``calls.py``."""

__all__: list[str] = []
