"""hcrot.summary: sizes and counts against formulas written out by hand, and nothing of the model changed."""

import numpy as np
import pytest

import hcrot
from hcrot.models.abarankab import AttentionBlock
from hcrot.models.lucidrains_parts import Attention, LinearAttention
from support.module_cases import small_unet


def ones(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("layer", "inputs", "expected"),
    [
        (hcrot.Linear(5, 3), [ones(7, 2, 5)], 7 * 2 * 5 * 3),
        (hcrot.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2), [ones(3, 4, 5, 7)], 3 * 6 * 3 * 4 * (2 * 3 * 2)),
        (hcrot.Conv2d(4, 6, 3), [ones(4, 5, 7)], 6 * 3 * 5 * (4 * 9)),
        (hcrot.Conv1d(4, 6, 3, groups=2), [ones(2, 4, 9)], 2 * 6 * 7 * (2 * 3)),
        (hcrot.ConvTranspose2d(4, 6, (3, 2), stride=2, groups=2), [ones(3, 4, 5, 7)], 3 * 4 * 5 * 7 * (3 * 3 * 2)),
        # four Linear of 6 x 6 for each of 20 tokens, then q k^T and P v with two heads of three
        (hcrot.Attention(6, 3), [ones(2, 6, 4, 5)], 2 * (4 * 20 * 6 * 6 + 2 * 20 * 20 * 2 * 3)),
        (hcrot.CrossAttention(4, 3, 2, 5), [ones(2, 6, 4), ones(2, 7, 3)], 2 * (6 * 4 * 10 * 2 + 2 * 7 * 3 * 10 + 2 * 6 * 7 * 10)),
        (hcrot.CrossAttention(4, 3, 2, 5), [ones(2, 4, 2, 3), ones(2, 7, 3)], 2 * (6 * 4 * 10 * 2 + 2 * 7 * 3 * 10 + 2 * 6 * 7 * 10)),
        (AttentionBlock(4, None), [ones(2, 4, 3, 5)], 2 * (15 * 4 * 12 + 15 * 4 * 4 + 2 * 15 * 15 * 4)),
        (Attention(4, 2, 3, 5), [ones(2, 4, 3, 5)], 2 * (15 * 4 * 18 + 15 * 6 * 4 + 2 * 15 * 20 * 6)),
        (LinearAttention(4, 2, 3, 5), [ones(2, 4, 3, 5)], 2 * (15 * 4 * 18 + 15 * 6 * 4 + (20 + 15) * 2 * 9)),
        (hcrot.GroupNorm(2, 4), [ones(2, 4, 3, 5)], 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_multiplications_are_those_of_the_formula(layer, inputs, expected):
    assert hcrot.summary(layer, *inputs).multiplications == expected


def test_a_network_is_the_sum_of_its_parts_and_is_left_as_it_was():
    model = small_unet(0)
    model.dropout = hcrot.Dropout(0.5, generator=1)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((3, 2, 5, 6), dtype=np.float32), np.arange(3)
    expected = model(x, t)
    kept = {id(module): module._kept for module in model.modules()}
    before = model.state_dict()
    result = hcrot.summary(model, x, t)
    assert result.parameters == model.num_parameters() and result[""].output == "(3, 3, 5, 6)"
    leaves = {name for name, module in model.named_modules() if not list(module.children())}
    products = [line for line in result.lines if line.name in leaves or line.kind == "Attention"]
    whole = sum(line.multiplications for line in products if line.kind != "Attention")
    attention = [line for line in products if line.kind == "Attention"]
    inside = sum(line.multiplications for line in result.lines for outer in attention if line.name.startswith(outer.name + "."))
    assert result.multiplications == whole + sum(line.multiplications for line in attention) - inside
    assert all(module._kept is kept[id(module)] for module in model.modules())
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    assert model.dropout.generator.bit_generator.state == hcrot.Dropout(0.5, generator=1).generator.bit_generator.state
    model.forget()
    np.testing.assert_array_equal(model(x, t), expected)


def test_kept_is_what_save_holds_and_shared_memory_counts_once():
    class Keeper(hcrot.Module):
        def __init__(self):
            self.weight = hcrot.Parameter(ones(3, 4))
            self.first, self.second = hcrot.Linear(4, 4), hcrot.Linear(4, 4)

        def forward(self, x):
            self.save(x[:, 1:], [x * 2], "a word", self.weight.data)
            return self.first(x) + self.second(x)

    x = ones(5, 4)
    result = hcrot.summary(Keeper(), x)
    assert result.kept == 2 * x.nbytes  # x, which three hold in part or whole, and x * 2; not the weight
    assert {line.name: line.kept for line in result.lines} == {"": 160, "first": 80, "second": 0}
    assert result.uncounted == [""] and "not counted" in repr(result)


def test_memory_of_a_training_pass_is_what_the_table_says():
    """Against all that is really held after a forward: every array, its memory counted once."""
    model = small_unet(0)
    x = np.random.default_rng(0).standard_normal((3, 2, 5, 6), dtype=np.float32)
    model(x, np.arange(3))
    memory, weights = {}, {id(parameter.data) for parameter in model.parameters()}

    def collect(value):
        if isinstance(value, np.ndarray):
            while isinstance(value.base, np.ndarray):
                value = value.base
            memory[id(value)] = value.nbytes
        elif isinstance(value, (tuple, list)):
            for item in value:
                collect(item)

    for module in model.modules():
        collect([values for values, _ in module._kept[1]] if module._kept else [])
    assert hcrot.summary(model, x, np.arange(3)).kept == sum(size for key, size in memory.items() if key not in weights)


def test_text_tells_of_modules_called_twice_shared_frozen_or_not_at_all():
    class Twice(hcrot.Module):
        def __init__(self):
            self.one = hcrot.Linear(4, 4)
            self.also = self.one
            self.unused = hcrot.ReLU()

        def forward(self, x):
            return self.one(self.also(x))

    model = Twice()
    model.one.bias.trainable = False
    text = repr(hcrot.summary(model, ones(2, 4)))
    assert "one (Linear) (2, 4) x 2 20 64 64 B " in " ".join(text.split())
    assert "also (Linear)  as above\n" in text and "└─ unused (ReLU)\n" in text
    assert text.endswith("20 parameters (80 B), 16 trainable; 64 multiplications; 64 B kept for backward")


def test_eval_mode_depth_and_no_inputs():
    model = hcrot.Sequential(hcrot.Sequential(hcrot.Linear(4, 2))).eval()
    assert hcrot.summary(model, ones(3, 4)).kept == 48 and not model.training
    short = hcrot.summary(model, depth=1)
    assert len(repr(short).splitlines()) == 4 and "multiplications;" not in repr(short)
    assert "<td" in short._repr_html_() and "Linear" not in short._repr_html_()


def test_what_a_forward_may_change_is_a_copy_and_what_waits_for_its_backward_is_left_alone():
    class Waiting:
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    model = hcrot.Sequential(hcrot.BatchNorm2d(4), hcrot.ReLU())
    model[1].save(Waiting())
    for look in (hcrot.summary, hcrot.profile):
        look(model, np.random.default_rng(0).standard_normal((3, 4, 5, 6), dtype=np.float32))
    assert not model[0].running_mean.data.any() and isinstance(model[1].saved(), Waiting)


def test_a_part_in_eval_mode_keeps_nothing():
    model = hcrot.Sequential(hcrot.Linear(4, 4), hcrot.Linear(4, 4))
    model[0].eval()
    assert [line.kept for line in hcrot.summary(model, ones(2, 4)).lines] == [32, 0, 32]


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="summary: model must be a Module, got int"):
        hcrot.summary(3)
    with pytest.raises(ValueError, match="summary: depth must be None or an int of at least 0, got -1"):
        hcrot.summary(hcrot.ReLU(), depth=-1)
    with pytest.raises(KeyError, match="no module 'x'"):
        hcrot.summary(hcrot.ReLU())["x"]
