"""What the docstrings of hcrot need to be read as Markdown: their roles become links within the reference.

A griffe extension: mkdocstrings has it look at every object before its docstring is shown.
"""

import re
from typing import Any

from griffe import Extension, Object

import hcrot
from hcrot import data, functional, pipelines

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`~?([\w.]+)`")
PLACES = {name: f"hcrot.{name}" for name in hcrot.__all__}
for room in (functional, data, pipelines):
    PLACES |= {name: f"{room.__name__}.{name}" for name in room.__all__ if name not in PLACES}
for name in ("save", "load"):
    PLACES[name] = f"hcrot.pipelines.folder.{name}"
for name in ("sample", "steps", "ddpm", "ddim"):  # pipelines.sample is a file, too
    PLACES[name] = f"hcrot.pipelines.sample.{name}"
PLACES["resize"] = "hcrot.data.resize.resize"
HIDDEN = {"multiplications", "describe", "group_backward", "grouped_forward", "scale_and_shift", "track", "slices"}
"""Methods for other parts of the library: public among its files, but not for who uses a layer."""


def linked(role: re.Match) -> str:
    """``:func:`hcrot.summary` `` as a link to it, and a role that names nothing public as code."""
    name = role[1].rpartition(".")[2]
    return f"[`{role[1]}`][{PLACES[name]}]" if name in PLACES else f"`{role[1]}`"


class Roles(Extension):
    """Turns the roles of docstrings into links, and says where a function or class stands."""

    def on_object(self, *, obj: Object, **rest: Any) -> None:
        if obj.name in HIDDEN:
            obj.public = False
        if obj.docstring:
            text = ROLE.sub(linked, obj.docstring.value)
            text = re.sub(r"^(\s+\w+: )>", r"\1\>", text, flags=re.MULTILINE)  # "lr: > 0" is no quotation
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)  # the name of griffe's section
            if obj.parent and obj.parent.is_module and not obj.is_module:
                obj.docstring.value += f"\n\n*In `{obj.relative_package_filepath}`, from line {obj.lineno}.*"
