"""What a notebook shows: every table parses as XML, and has what is worth reading."""

import xml.etree.ElementTree as ElementTree

import numpy as np

import hcrot
from hcrot.shown import Table, as_bytes, tree_prefixes


def text_of(thing):
    return " ".join(" ".join(ElementTree.fromstring(thing._repr_html_().replace(" open>", ">")).itertext()).split())


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


def test_a_schedule_shows_its_rates_and_where_it_is():
    schedule = hcrot.get_scheduler("linear", hcrot.SGD([hcrot.Parameter(np.zeros(2))], lr=0.8), 10, 90)
    schedule.step()
    shown = text_of(schedule)
    assert shown.startswith("LRSchedule(linear(10, 90), base_lr=0.8, step=1, lr=0.08) step lr 0 0 1 0.08 now 11 0.79 22 0.68")
    assert shown.endswith("79 0.11 90 0")
    one_cycle = text_of(hcrot.get_scheduler("one_cycle", hcrot.SGD([hcrot.Parameter(np.zeros(2))], lr=0.8), 0, 81))
    assert " 0 0.032 now 10 " in one_cycle and one_cycle.endswith(" 80 3.2e-06")
    own = hcrot.LRSchedule(hcrot.SGD([hcrot.Parameter(np.zeros(2))], lr=0.8), lambda step: 0.5)
    assert text_of(own).endswith("lr=0.4) step lr 0 0.4 now")


def test_an_average_shows_its_memory_and_how_far_it_is():
    parameter = hcrot.Parameter(np.full(4, 3.0))
    ema = hcrot.EMA([parameter], 0.99, update_after_step=3, use_ema_warmup=True, power=1.0)
    for _ in range(8):
        ema.step()
    parameter.data[...] = 4
    rows = "step decay steps that count 4 0 1 8 0.8 5 now 13 0.9 10 103 0.99 100"
    assert text_of(ema).endswith(f"step=8) {rows} norm of averages - parameters: 2; of the parameters: 8")
    with ema.swapped_in():
        assert text_of(ema).endswith("the parameters are the averages")
    assert " 1 0 1 10 0.526316 2 100 0.917431 12 " in text_of(hcrot.EMA([parameter]))


def test_batches_and_sr3_say_what_they_are():
    batches = hcrot.data.Batches(np.zeros((10, 2)), batch_size=4, generator=0, drop_last=True)
    next(iter(batches))
    assert repr(batches) == "Batches(10 items shuffled, batch_size=4, drop_last=True, 2 batches, epoch=0, position=4)"
    assert repr(hcrot.data.Batches(range(2000), batch_size=500, generator=None)).startswith("Batches(2,000 items in order, ")
    sr3 = hcrot.SR3Diffusion(hcrot.Identity(), np.full(1200, 0.01), np.full(50, 0.1))
    assert repr(sr3) == "SR3Diffusion(Identity, 1,200 levels in training, 50 in sampling)"


def test_a_table_is_aligned_and_escaped():
    table = Table("head", ("name", "n"), [["a<b", "1"], ["c", "10"]], notes=["a note"])
    assert str(table) == "head\nname   n\na<b    1\nc     10\na note"
    assert "a&lt;b" in table.html()


def test_bytes_and_trees():
    assert [as_bytes(n) for n in (0, 999, 1500, 2_500_000, 3e9)] == ["0 B", "999 B", "1.5 kB", "2.5 MB", "3.00 GB"]
    assert tree_prefixes([0, 1, 2, 2, 1, 2]) == ["", "├─ ", "│  ├─ ", "│  └─ ", "└─ ", "   └─ "]
