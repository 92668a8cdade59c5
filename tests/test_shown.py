"""What a notebook shows: every table parses as XML, and has what is worth reading."""

import xml.etree.ElementTree as ElementTree

import numpy as np

import hcrot
from hcrot.shown import Table, as_bytes, tree_prefixes


def text_of(thing):
    return " ".join(ElementTree.fromstring(thing._repr_html_().replace(" open>", ">")).itertext())


def test_a_module_shows_its_tree_to_be_unfolded():
    class Less(hcrot.Module):
        def describe(self):
            return "a < b"

    model = hcrot.Sequential(hcrot.Linear(2, 3), Less())
    assert text_of(model) == "Sequential(): 9 parameters (0): Linear(2, 3, bias=True): 9 parameters (1): Less(a < b)"
    assert model._repr_html_().count("<details") == 1 and "<details" not in Less()._repr_html_()


def test_schedulers_optimizers_and_reports():
    scheduler = hcrot.DDIMScheduler(num_train_timesteps=50)
    shown = text_of(scheduler)
    assert "DDIMScheduler(num_train_timesteps=50)" in shown and "num_train_timesteps 50" in shown
    assert "beta_schedule 'linear' default" in shown and all(name in shown for name in scheduler.config)
    model = hcrot.Linear(2, 3)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.5, "weight_decay": 0.0}]
    shown = text_of(hcrot.AdamW(groups, lr=0.25))
    assert "AdamW(lr=0.25" in shown and " 0.25 0.01" in shown and " 0.5 0" in shown
    report = hcrot.check_gradients(model, np.ones((4, 2)))
    assert "all agree" in text_of(report) and "weight (Linear) ok (3, 2)" in text_of(report)


def test_a_table_is_aligned_and_escaped():
    table = Table("head", ("name", "n"), [["a<b", "1"], ["c", "10"]], notes=["a note"])
    assert str(table) == "head\nname   n\na<b    1\nc     10\na note"
    assert "a&lt;b" in table.html()


def test_bytes_and_trees():
    assert [as_bytes(n) for n in (0, 999, 1500, 2_500_000, 3e9)] == ["0 B", "999 B", "1.5 kB", "2.5 MB", "3.00 GB"]
    assert tree_prefixes([0, 1, 2, 2, 1, 2]) == ["", "├─ ", "│  ├─ ", "│  └─ ", "└─ ", "   └─ "]
