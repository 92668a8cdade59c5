"""Exercises and bugs in Korean: the same formulas and hints as in English, and commands that speak it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import hcrot
from hcrot.commands import main
from hcrot.learn import languages, notebooks, workbook
from hcrot.learn.languages import cells, translation
from hcrot.learn.workbook import Task, find, tasks

ROOT = Path(__file__).parents[2]
KOREAN = ROOT / "hcrot" / "learn" / "korean"
TRANSLATED = list(tasks("ko"))


def file_of(task: Task) -> Path:
    return KOREAN / ("bugs" if task.is_bug else "") / f"{task.path.stem}.md"


def formulas(text: str) -> set[str]:
    """What stands between spaces and Korean words, and is no word itself: ``y_k``, ``np.where``, ``softmax(S``, ``=``."""
    pieces = [piece.strip("().,:;?!`'\"") for piece in re.sub("[가-힣]+", " ", text).split()]
    return {piece for piece in pieces if re.search(r"[=_^\[\]()/*+<>|@]|\w\w\.[A-Za-z_]{2}", piece)}


def code(text: str) -> set[str]:
    return set(re.findall("`+([^`]+)`+", text))


def indented(text: str) -> int:
    return len(re.findall("^    .*", text, re.MULTILINE))


@pytest.mark.parametrize("task", [pytest.param(task, id=task.name) for task in TRANSLATED])
def test_a_translation_has_the_same_formulas_code_and_hints(task):
    english, korean = replace(task, language="en").text, translation(task.path, "ko")
    assert korean, "it has no translation"
    assert len(english.hints) == len(korean.hints)
    parts = [[text.title, text.task, *text.hints, text.why, text.symptom] for text in (english, korean)]
    for said, translated in zip(*parts, strict=True):
        assert formulas(said) == formulas(translated)
        assert code(said) == code(translated)
        assert indented(said) == indented(translated)
    assert all(re.search("[가-힣]", part) for part in (korean.task, korean.hints[0], korean.why))
    assert cells(korean.title) <= 70 and not korean.title.endswith(".")
    assert not re.search(r'\\|"""', korean.title + korean.task), "it would not be the same in a docstring"
    assert max(map(cells, file_of(task).read_text(encoding="utf-8").splitlines())) <= 140, "a line is too wide (a Korean letter is 2)"
    compile(task.given, task.name, "exec")


def test_each_translation_is_that_of_a_task_and_installed_with_hcrot():
    tomllib = pytest.importorskip("tomllib")
    files = set(KOREAN.rglob("*.*"))
    assert files <= set(map(file_of, tasks()))
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]["hcrot.learn"]
    assert files <= {path for pattern in patterns for path in KOREAN.parent.glob(pattern)}


def call(*words):
    with pytest.raises(SystemExit) as ended:
        main(["learn", *map(str, words)])
    return ended.value.code


def test_a_folder_begun_in_korean_goes_on_in_korean(tmp_path, capsys):
    assert call("start", "01-1", "--language", "ko", "--folder", tmp_path) == 0
    said = capsys.readouterr().out
    text = translation(find("01-1").path, "ko")
    assert said.startswith(f"01-1: {text.title}\n\n{text.task}\n") and "파일을 썼습니다" in said and "맞는지 검사합니다" in said
    path = tmp_path / "01_1_used_twice.py"
    written, english = path.read_text(encoding="utf-8"), find("01-1")
    assert written.startswith(f'"""{text.title}\n\n{text.task}\n"""\n')
    assert written.partition('\n"""')[2] == english.given.partition('\n"""')[2]

    assert call("check", "01-1", "--folder", tmp_path) == 1
    said = capsys.readouterr().out
    assert "아직 아닙니다" in said and "is still to be written" in said and "3개 남았습니다" in said
    assert call("hint", "01-1", "--folder", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["hints"] == [text.hints[0]]
    assert "힌트 2/3" in str(hcrot.learn.hint("01-1", tmp_path))
    path.write_text(written.replace(workbook.HOLE, "return dy * (b + 2 * a), dy * a"), encoding="utf-8")
    answer = hcrot.learn.check("01-1", tmp_path)
    assert answer and "맞았습니다. 검사 2번" in str(answer) and "다음 문제는 02-1" in str(answer)
    said = str(hcrot.learn.solution("01-1", tmp_path))
    assert text.why in said and f'"""{text.title}' in said and "db = dy * a" in said
    assert re.search(rf"1장: 곱셈 하나\n  01-1  ★ {text.title} +끝냄, 힌트 2개, 풀이 봄\n", listed := str(hcrot.learn.contents(tmp_path)))
    assert cells(listed.partition("끝냄")[0].rpartition("\n")[2]) == 81, "what is done stands in one column in all languages"

    assert "hint 3 of 3: da" in str(hcrot.learn.hint("01-1", tmp_path, language="en"))
    assert "힌트는 이것이 전부입니다" in str(hcrot.learn.hint("01-1", tmp_path)), "only start changes what the folder speaks"
    hcrot.learn.start("01-1", tmp_path, again=True, language="en")
    assert path.read_text(encoding="utf-8") == english.given
    assert "These were all hints" in str(hcrot.learn.hint("01-1", tmp_path))


def test_a_bug_in_korean(tmp_path):
    text = translation(find("bug-01").path, "ko")
    assert text.symptom.split()[0] in str(hcrot.learn.start("bug-01", tmp_path, language="ko"))
    path = tmp_path / "bug_01_linear.py"
    written = path.read_text(encoding="utf-8")
    head = written.partition('"""')[0]
    assert " ".join(head.replace("# ", "").split()) == " ".join(text.symptom.split())
    assert max(map(cells, head.splitlines())) <= 102
    path.write_text(written.replace("grad[...] =", "grad +="), encoding="utf-8")
    answer = str(hcrot.learn.check("bug-01", tmp_path))
    assert "4점 가운데 4점" in answer and " ".join(text.why.split()) in answer.replace("\n", " ")
    assert "+++ 고친 코드" in str(hcrot.learn.solution("bug-01", tmp_path))
    assert "버그 사냥: 50개 가운데 1개를 찾았고, 200점 가운데 4점" in str(hcrot.learn.contents(tmp_path))


def test_the_korean_site_and_notebooks_speak_korean(tmp_path, monkeypatch):
    monkeypatch.setattr(languages, "spoken_here", "ko")
    assert hcrot.learn.contents(tmp_path).facts["tasks"][0]["title"] == translation(find("01-1").path, "ko").title
    monkeypatch.undo()
    hcrot.learn.start("01-1", tmp_path, language="ko")
    monkeypatch.setattr(notebooks, "notebook", lambda page: page)
    assert "곱셈" in Path(notebooks.write("1", tmp_path).facts["file"]).read_text(encoding="utf-8")


def test_what_is_not_translated_is_told_in_english(tmp_path, monkeypatch):
    monkeypatch.setattr(languages, "TEXTS", {"ko": "klingon"})
    translation.cache_clear()
    try:
        assert "A value that is used twice." in (said := str(hcrot.learn.start("01-1", tmp_path, language="ko"))) and "파일을" in said
        assert "힌트 1/3: How often does a stand" in str(hcrot.learn.hint("01-1", tmp_path))
        assert "Name each use" in str(hcrot.learn.solution("01-1", tmp_path))
    finally:
        translation.cache_clear()


def test_a_damaged_translation_and_an_unknown_language_are_told(tmp_path, capsys):
    (tmp_path / "korean").mkdir()
    (tmp_path / "korean" / "01_1_a.md").write_text("# 제목\n\n할 일\n\n## 힌트\n\n- 하나\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"01_1_a.md has the headings \['힌트'\], expected a title .*'힌트', '풀이'"):
        translation(tmp_path / "exercises" / "01_1_a.py", "ko")
    assert call("start", "01-1", "--language", "fr", "--folder", tmp_path / "mine") == 2
    assert "invalid choice: 'fr'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the course is written in en and ko, not in 'fr'"):
        hcrot.learn.start("01-1", tmp_path / "mine", language="fr")
    with pytest.raises(TypeError, match="a language is a text such as 'ko', got 3"):
        hcrot.learn.contents(tmp_path / "mine", language=3)
    assert not (tmp_path / "mine").exists()


def test_all_sentences_exist_in_all_languages():
    english, korean = ({name: set(re.findall(r"{(\w+)}", text)) - {"s"} for name, text in said.items()} for said in languages.SAID.values())
    assert english == korean and tuple(languages.SAID) == languages.LANGUAGES
