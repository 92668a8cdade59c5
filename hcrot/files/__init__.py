"""What is read from and written to the disk: JSON and arrays, networks in diffusers' folders, checkpoints."""

__all__: list[str] = []
