"""The drawings of the course, a file for each topic; each function returns a figure."""

__all__: list[str] = []
