"""What ships for learners: exercises that grade themselves, a hunt for bugs, and the drawings of the course."""

__all__: list[str] = []
