"""What looks at networks and images: plots (`hcrot.plotting`) and figures of merit (`hcrot.metrics`)."""

__all__: list[str] = []
