"""The languages of the workbook: what its commands say, and the translations of exercises and bugs.

A task is written in English, in its own file. ``hcrot/learn/korean/02_1_linear_backward.md`` has what is said of the exercise of that name
in Korean, ``hcrot/learn/korean/bugs/01_linear.md`` that of a bug:

    # The title                     the first line of the docstring, without a full stop

    What is to be done: the rest of the docstring of the file.

    ## 힌트

    - The first hint. It may go on
      in a line that is set in.
    - The second one.

    ## 풀이

    The derivation. Of a bug there are ``## 증상`` (the symptom) before the hints, and ``## 설명`` (the explanation) after them.

Formulas and code are those of the English text, and what is set in there is set in here. The code of a task, its comments and the messages
of its check are English in every language.
"""

import re
import textwrap
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["CHAPTERS", "LANGUAGES", "Text", "cells", "chapter", "filled", "known_language", "padded", "said", "spoken_here", "translation"]

LANGUAGES = ("en", "ko")
"""The first of them is spoken if nobody asks for another one."""

TEXTS = {"ko": "korean"}
"""The folder with the translations into each of the others."""

HEADINGS = {"ko": ({"힌트": "hints", "풀이": "why"}, {"증상": "symptom", "힌트": "hints", "설명": "why"})}
"""The parts of a translation, in order, by what they are for: first of an exercise, then of a bug."""

CHAPTERS = {
    "en": {
        "01": "one multiplication", "02": "the linear layer", "03": "activations", "04": "softmax and cross-entropy", "05": "convolution",
        "06": "im2col and col2im", "07": "group normalisation", "08": "attention", "09": "up and down", "10": "embeddings and time",
        "11": "the U-Net", "12": "optimizers and averages", "13": "the forward process", "14": "the loss", "15": "fewer steps",
        "16": "scores and guidance", "17": "speed", "18": "Winograd's convolution",
    },
    "ko": {
        "01": "곱셈 하나", "02": "선형 층", "03": "활성화 함수", "04": "소프트맥스와 교차 엔트로피", "05": "합성곱",
        "06": "im2col과 col2im", "07": "그룹 정규화", "08": "어텐션", "09": "줄이고 늘리기", "10": "임베딩과 시간",
        "11": "U-Net", "12": "옵티마이저와 평균", "13": "정방향 과정", "14": "손실", "15": "더 적은 단계",
        "16": "스코어와 가이던스", "17": "속도", "18": "위노그라드의 합성곱",
    },
}  # fmt: skip
"""What the chapters of the course are about, by the numbers that files begin with."""

SAID = {
    "en": {
        "chapter": "chapter {number}: {about}",
        "bug hunt": "bug hunt",
        "wrote": "Wrote {path}. {what}. Then:",
        "mend": "Find what is wrong in it, and mend it",
        "fill": "Replace each `raise NotImplementedError` in it",
        "check": "is it right?",
        "hint": "one hint after the other",
        "solution": "when you want to compare",
        "not yet": "{number}: not yet.",
        "more hints": "`hcrot learn hint {number}` has {left} more.",
        "explained": "`hcrot learn solution {number}` explains.",
        "mended": "{number}: found and mended. {points} of {possible} points.",
        "right": "{number}: right, after {tries} check{s}.\n\n`hcrot learn solution {number}` has the derivation.",
        "next": " Next on the road of one hour: exercise {number}.",
        "all hints": "These were all hints:",
        "the rest": "`hcrot learn solution {number}` has the rest.",
        "this hint": "{number}, hint {index} of {count}: {hint}",
        "defective": "defective",
        "mended lines": "mended",
        "star": "★ The way to your own Conv2d.backward in about an hour; docs/course/index.md says what to read for it.",
        "score": ": {found} of {bugs} found, {points} of {possible} points",
        "found": "found, {count} point{s}",
        "done": "done",
        "begun": "begun",
        "hints": "{count} hint{s}",
        "seen": "solution seen",
    },
    "ko": {
        "chapter": "{number}장: {about}",
        "bug hunt": "버그 사냥",
        "wrote": "{path} 파일을 썼습니다. {what}. 그다음에는 이렇게 합니다.",
        "mend": "무엇이 틀렸는지 찾아서 고치십시오",
        "fill": "`raise NotImplementedError` 자리마다 자신의 코드를 쓰십시오",
        "check": "맞는지 검사합니다",
        "hint": "힌트를 하나씩 보여 줍니다",
        "solution": "비교해 보고 싶을 때 풀이를 보여 줍니다",
        "not yet": "{number}: 아직 아닙니다.",
        "more hints": "힌트가 {left}개 남았습니다: `hcrot learn hint {number}`",
        "explained": "설명을 보려면: `hcrot learn solution {number}`",
        "mended": "{number}: 찾아서 고쳤습니다. {possible}점 가운데 {points}점입니다.",
        "right": "{number}: 맞았습니다. 검사 {tries}번 만입니다.\n\n유도를 보려면: `hcrot learn solution {number}`",
        "next": "\n한 시간 코스의 다음 문제는 {number}입니다.",
        "all hints": "힌트는 이것이 전부입니다.",
        "the rest": "나머지를 보려면: `hcrot learn solution {number}`",
        "this hint": "{number}, 힌트 {index}/{count}: {hint}",
        "defective": "결함이 있는 코드",
        "mended lines": "고친 코드",
        "star": "★ 한 시간쯤 만에 Conv2d.backward를 직접 쓰는 길입니다. 무엇을 읽을지는 docs/course/index.ko.md에 있습니다.",
        "score": ": {bugs}개 가운데 {found}개를 찾았고, {possible}점 가운데 {points}점입니다",
        "found": "찾음, {count}점",
        "done": "끝냄",
        "begun": "시작함",
        "hints": "힌트 {count}개",
        "seen": "풀이 봄",
    },
}
"""What the commands say. ``{s}`` is the ending of a plural, by ``count`` or ``tries``."""

spoken_here = "en"
"""Where neither a call nor the learner's folder names a language. The Korean pages of the site change it while their code runs."""


@dataclass(frozen=True)
class Text:
    """What is said of an exercise or a bug in one language.

    Attributes:
        title: one line.
        task: what is to be done.
        hints: one after the other.
        why: the derivation of an exercise, the explanation of a bug.
        symptom: of a bug, what a user sees.
    """

    title: str
    task: str
    hints: tuple[str, ...]
    why: str
    symptom: str = ""


def known_language(asked: str | None) -> str:
    """The language that is asked for, or the one that is spoken if none is.

    Raises:
        ValueError: no exercise is written in it. TypeError: it is no text.
    """
    if asked is None:
        return spoken_here
    if not isinstance(asked, str):
        raise TypeError(f"a language is a text such as 'ko', got {asked!r:.40}")
    if asked not in LANGUAGES:
        raise ValueError(f"the course is written in {' and '.join(LANGUAGES)}, not in {asked!r:.40}")
    return asked


def said(language: str, sentence: str, /, **values: object) -> str:
    """One of the sentences of ``SAID``."""
    count = values.get("count", values.get("tries"))
    return SAID[language][sentence].format(s="" if count == 1 else "s", **values)


def chapter(language: str, number: str) -> str:
    """The name of a chapter in the list of exercises; its number has two digits, as in the names of files."""
    shown = number if language == "en" else str(int(number))
    return said(language, "chapter", number=shown, about=CHAPTERS[language][number])


@cache
def translation(english: Path, language: str) -> Text | None:
    """What is said of a task in another language; None if that is not written yet, or if the language is English.

    Args:
        english: the file of the task.
        language: one of ``LANGUAGES``.

    Raises:
        ValueError: the translation lacks a part, or has an unknown one.
    """
    if language not in TEXTS:
        return None
    is_bug = english.parent.name == "bugs"
    path = english.parents[1] / TEXTS[language] / ("bugs" if is_bug else "") / f"{english.stem}.md"
    if not path.is_file():
        return None
    head, *rest = re.split(r"^## (.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found, wanted = [name.strip() for name in rest[::2]], HEADINGS[language][is_bug]
    if found != list(wanted) or not head.startswith("# "):
        raise ValueError(f"{path.name} has the headings {found}, expected a title (`# `), then {list(wanted)}")
    title, _, task = head.removeprefix("# ").partition("\n")
    parts = {wanted[name]: body.strip("\n").rstrip() for name, body in zip(found, rest[1::2], strict=True)}
    hints = tuple(" ".join(hint.split()) for hint in re.split(r"^- ", parts.pop("hints"), flags=re.MULTILINE) if hint.strip())
    return Text(title.strip(), task.strip("\n").rstrip(), hints, **parts)


# ---------------------------------------------------------------- text in a terminal

WIDE = "WF"  # Unicode's letters for characters that take two places: Korean is written in such ones
FILLER = "\0"


def cells(text: str) -> int:
    """How many places of a line a text takes in a terminal."""
    return len(spread(text))


def spread(text: str) -> str:
    """The text with a filler behind each wide character: so its length is its width."""
    return "".join(letter + FILLER * (unicodedata.east_asian_width(letter) in WIDE) for letter in text)


def padded(text: str, width: int) -> str:
    """The text with so many spaces behind it that it is ``width`` places wide."""
    return text + " " * (width - cells(text))


def filled(text: str) -> str:
    """Paragraphs in lines of 100 places, which fit into most terminals."""
    paragraphs = [spread(" ".join(paragraph.split())) for paragraph in text.strip().split("\n\n")]
    return "\n\n".join(textwrap.fill(paragraph, 100) for paragraph in paragraphs).replace(FILLER, "")
