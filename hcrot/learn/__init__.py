"""Learn how it all works: exercises that check themselves, and fifty bugs to find.

    >>> import hcrot
    >>> hcrot.learn.contents()            # all exercises, and what is done         # doctest: +SKIP
    >>> hcrot.learn.start("02-1")         # writes a file into hcrot_exercises/     # doctest: +SKIP
    >>> hcrot.learn.start("02-1", language="ko")  # in Korean, and so is what comes later   # doctest: +SKIP
    >>> hcrot.learn.check("02-1")         # after you have worked on it             # doctest: +SKIP
    >>> hcrot.learn.hint("02-1")          # the next hint                           # doctest: +SKIP
    >>> hcrot.learn.solution("02-1")      # with its derivation                     # doctest: +SKIP

``hcrot learn`` does the same on the command line.
"""

from hcrot.learn.checks import Check, Wrong
from hcrot.learn.workbook import Answer, check, contents, hint, solution, start

__all__ = ["Answer", "Check", "Wrong", "check", "contents", "hint", "solution", "start"]
