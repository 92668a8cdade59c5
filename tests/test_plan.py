"""The plan of a forward pass in inference: it gives what the layers give, bit for bit, whatever has been changed since it was made."""

import copy
import gc
import os
import sys
import threading
import weakref

import numba
import numpy as np
import pytest

import hcrot
from hcrot import plan
from hcrot.kernels.launch import recorded
from hcrot.kernels.replay import CannotReplay, Replay
from hcrot.layers import conv as conv_layers
from hcrot.models.unet_2d import UNet2dModel
from hcrot.models.unet_2d_blocks import ResnetBlock2D
from support.processes import run
from support.small_unets import SMALL

CONFIG = SMALL | {"sample_size": 12, "in_channels": 2, "out_channels": 2, "attention_head_dim": 8, "num_class_embeds": 3}
LAYERS = UNet2dModel.body.__wrapped__
pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="there are plans of compiled kernels only")


def make_model(**options):
    return UNet2dModel(**{**CONFIG, **options}, generator=0)


def make_inputs(model, seed=0, batch=2):
    rng = np.random.default_rng(seed)
    size = model.config["sample_size"]
    x = rng.standard_normal((batch, model.config["in_channels"], size, size)).astype(model.conv_in.weight.dtype)
    return x, rng.integers(0, 1000, batch), rng.integers(0, 3, batch)


def call(model, seed=0, batch=2):
    with model.inference():
        return model(*make_inputs(model, seed, batch))


def by_layers(model, seed=0, batch=2):
    """What the network gives without a plan."""
    planned = UNet2dModel.body
    UNet2dModel.body = LAYERS
    try:
        return call(model, seed, batch)
    finally:
        UNet2dModel.body = planned


def plans_of(model):
    return list(plan.plans.of.get(model, {}).values())


def ready(model, batch=2):
    """Call it until there is a plan, and make sure of it."""
    for seed in range(3):
        call(model, seed, batch)
    assert [p.refused for p in plans_of(model)] == [None]
    assert plans_of(model)[0].replay is not None
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_class_embeds": None, "class_embed_type": "timestep"},
        {"time_embedding_type": "fourier"},
        {"downsample_type": "resnet", "upsample_type": "resnet"},
        {"add_attention": False, "dropout": 0.5},
        {"center_input_sample": True, "block_out_channels": (16, 16), "sample_size": (7, 10)},
    ],
)
@pytest.mark.parametrize("batch", [1, 5])
def test_the_same_bits(options, batch):
    size = options.get("sample_size", 12)
    model = make_model(**{**options, "sample_size": 12})
    rng = np.random.default_rng(1)
    shape = (batch, 2, *(size if isinstance(size, tuple) else (size, size)))
    for number in range(6):
        x, times, labels = rng.standard_normal(shape, dtype=np.float32), rng.integers(0, 1000, batch), rng.integers(0, 3, batch)
        labels = labels if model.class_embedding else None
        planned = UNet2dModel.body
        with model.inference():
            UNet2dModel.body = LAYERS
            try:
                expected = model(x, times, labels)
            finally:
                UNet2dModel.body = planned
            before = x.copy()
            y = model(x, times, labels)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(x, before)
        assert y.strides == expected.strides
        assert number < 2 or plans_of(model)[0].replay is not None


def double(array):
    array *= 2


CHANGES = {
    "a number of a parameter": lambda m: double(m.conv_in.weight.data[:1]),
    "all numbers of a kernel that is transformed": lambda m: double(m.mid_block.resnets[0].conv1.weight.data),
    "a parameter's array": lambda m: setattr(m.conv_in.weight, "data", m.conv_in.weight.data * 2),
    "a parameter's order of memory": lambda m: setattr(m.conv_in.weight, "data", 2 * np.array(m.conv_in.weight.data, order="C")),
    "a parameter": lambda m: setattr(m.conv_in, "weight", hcrot.Parameter(m.conv_in.weight.data * 2)),
    "no bias": lambda m: setattr(m.conv_in, "bias", None),
    "load_state_dict": lambda m: m.load_state_dict({name: 2 * array for name, array in m.state_dict().items()}),
    "a step of an optimizer": lambda m: train(m),
    "eps": lambda m: setattr(m.conv_norm_out, "eps", 0.5),
    "num_groups": lambda m: setattr(m.conv_norm_out, "num_groups", 2),
    "the algorithm": lambda m: setattr(m.mid_block.resnets[0].conv1, "algorithm", "winograd"),
    "the geometry": lambda m: setattr(m.conv_in, "geometry", (3, 3, 1, 1, 0, 2, 1, 1, 1, 1)),
    "a layer": lambda m: setattr(m, "conv_in", hcrot.Conv2d(2, 8, 3, padding=1, generator=5)),
    "an element of a list": lambda m: m.down_blocks[0].resnets.__setitem__(0, ResnetBlock2D(8, 8, 32, groups=4, generator=5)),
    "a list": lambda m: setattr(m.mid_block, "resnets", m.mid_block.resnets[::-1]),
    "no attention": lambda m: m.down_blocks[1].attentions.clear(),
    "no middle": lambda m: setattr(m, "mid_block", None),
    "a scale": lambda m: setattr(m.mid_block.resnets[0], "output_scale_factor", 3.0),
    "a method of an object": lambda m: setattr(m.conv_out, "forward", lambda x: 2 * hcrot.Conv2d.forward(m.conv_out, x)),
    "a class": lambda m: setattr(m.conv_out, "__class__", Doubling),
    "the dtype": lambda m: m.astype(np.float64),
}


class Doubling(hcrot.Conv2d):
    def forward(self, x, *others, **options):
        return 2 * super().forward(x, *others, **options)


def train(model):
    optimizer = hcrot.AdamW(model.parameters(), lr=0.1)
    x, times, labels = make_inputs(model)
    model.backward(model(x, times, labels))
    optimizer.step()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_anything_shows(change):
    model = ready(make_model())
    before = call(model)
    CHANGES[change](model)
    for seed in range(4):
        np.testing.assert_array_equal(call(model, seed), by_layers(model, seed))
    assert not np.array_equal(call(model), before)


def test_a_change_of_a_class_shows(monkeypatch):
    model = ready(make_model())
    forward = hcrot.Conv2d.forward
    monkeypatch.setattr(hcrot.Conv2d, "forward", lambda self, *a, **o: 2 * forward(self, *a, **o))
    for seed in range(4):
        np.testing.assert_array_equal(call(model, seed), by_layers(model, seed))
    assert plans_of(model)[0].refused
    monkeypatch.undo()
    for seed in range(4):
        np.testing.assert_array_equal(call(model, seed), by_layers(model, seed))
    assert plans_of(model)[0].replay


def test_a_method_that_looks_at_the_numbers_is_followed():
    """Somebody's own part may do now this, now that. There is no plan for it."""

    class Moody(hcrot.Conv2d):
        def forward(self, x, *others, **options):
            y = super().forward(x, *others, **options)
            return -y if x.sum() > 0 else y

    model = make_model()
    model.conv_in.__class__ = Moody
    for seed in range(6):
        np.testing.assert_array_equal(call(model, seed), by_layers(model, seed))
    assert plans_of(model)[0].replay is None and "own" in plans_of(model)[0].refused


@pytest.mark.parametrize("options", [{"resnet_time_scale_shift": "scale_shift"}, {"mid_block_scale_factor": 2.0}, {"act_fn": "mish"}])
def test_what_numpy_computes_between_kernels_is_found_out(options):
    model = make_model(**options)
    for seed in range(5):
        np.testing.assert_array_equal(call(model, seed), by_layers(model, seed))
    assert plans_of(model)[0].replay is None and plans_of(model)[0].refused == "the layers do more than call kernels"


def test_a_copy_that_numpy_makes_of_a_weight_is_found_out():
    model = make_model()
    weight = model.up_blocks[0].resnets[0].conv1.weight
    weight.data = np.array(weight.data, order="C")  # not the order in which kernels read it
    for seed in range(3):
        call(model, seed)
    assert plans_of(model)[0].replay is None
    weight.data *= 2
    np.testing.assert_array_equal(call(model), by_layers(model))


def test_modes():
    model = ready(make_model(dropout=0.5))
    evaluated = model.eval()
    for seed in range(4):
        np.testing.assert_array_equal(evaluated(*make_inputs(model, seed)), by_layers(model, seed))
    assert all(p.replay for p in plans_of(model))
    model.mid_block.train()
    draws = [model(*make_inputs(model)) for _ in range(4)]
    assert not any(np.array_equal(draws[0], other) for other in draws[1:])  # the middle drops
    model.train()
    first, second = model(*make_inputs(model)), model(*make_inputs(model))
    assert not np.array_equal(first, second)
    assert plans_of(model) == []  # in training the memory is given back
    model.forget()


def test_training_goes_on_after_inference():
    """Gradients between inferences with a plan are those of a network without one."""
    gradients = []
    for planned in (True, False):
        model = make_model()
        if planned:
            ready(model)
        model.backward(model(*make_inputs(model)))
        if planned:
            ready(model)
        gradients.append([parameter.grad.copy() for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_array_equal(one, other)


def test_averages_that_are_swapped_in():
    model = ready(make_model())
    ema = hcrot.EMA(model.parameters())
    train(model)
    before = call(ready(model))
    with ema.swapped_in():
        np.testing.assert_array_equal(call(model), by_layers(model))
        assert not np.array_equal(call(model), before)
    np.testing.assert_array_equal(call(model), before)


def test_results_are_the_callers_own():
    model = ready(make_model())
    first = call(model, 0)
    kept = first.copy()
    second = call(model, 1)
    np.testing.assert_array_equal(first, kept)
    second.fill(np.nan)
    np.testing.assert_array_equal(call(model, 0), kept)


def test_numbers_that_are_not_finite_pass_through_and_leave_no_trace():
    model = ready(make_model())
    x, times, labels = make_inputs(model)
    clean = call(model)
    bad = x.copy()
    bad[0, 0, 0, 0] = np.nan
    with model.inference():
        assert np.isnan(model(bad, times, labels)[0]).any()
        np.testing.assert_array_equal(model(x, times, labels), clean)


def test_any_memory_order_of_the_images():
    model = ready(make_model())
    x, times, labels = make_inputs(model)
    expected = call(model)
    with model.inference():
        for order in (np.asfortranarray(x), np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), x[:, :, ::-1][:, :, ::-1]):
            np.testing.assert_array_equal(model(order, times, labels), expected)


def test_shapes_and_threads_have_plans_of_their_own():
    model = make_model()
    try:
        for _ in range(4):
            for batch in (1, 2, 3):
                for threads in (1, 2):
                    hcrot.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
                    np.testing.assert_array_equal(call(model, batch, batch), by_layers(model, batch, batch))
    finally:
        hcrot.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert len(plans_of(model)) <= plan.MOST_PLANS


def test_large_arrays_have_no_plan(monkeypatch):
    monkeypatch.setattr(plan, "MOST_BYTES", 1000)
    model = make_model()
    for seed in range(3):
        np.testing.assert_array_equal(call(model, seed), by_layers(model, seed))
    assert "bytes" in plans_of(model)[0].refused


def test_python_threads_do_not_share_a_plan():
    model = make_model()
    expected = [by_layers(model, seed) for seed in range(4)]
    errors = []

    def work(seed):
        for _ in range(20):
            if not np.array_equal(call(model, seed), expected[seed]):
                errors.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_plan_ends_with_its_model_and_is_not_copied():
    model = ready(make_model())
    memory = weakref.ref(plans_of(model)[0].replay)
    twin = copy.deepcopy(model)
    assert plans_of(twin) == []
    double(twin.conv_out.bias.data[:1])
    ready(twin)
    np.testing.assert_array_equal(call(twin), by_layers(twin))
    np.testing.assert_array_equal(call(model), by_layers(model))
    del model
    gc.collect()
    assert memory() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_goes_on_with_its_plan():
    script = """
        import os
        import numpy as np
        import test_plan
        model = test_plan.ready(test_plan.make_model())
        expected = test_plan.call(model)
        pid = os.fork()
        if pid == 0:
            np.testing.assert_array_equal(test_plan.call(model), expected)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        np.testing.assert_array_equal(test_plan.call(model), expected)
    """
    result = run(script, NUMBA_NUM_THREADS="2", PYTHONPATH=os.pathsep.join(sys.path))
    assert result.returncode == 0, result.stderr


# ---------------------------------------------------------------- replays


def test_a_replay_reads_inputs_and_constants_anew():
    layer = hcrot.Conv2d(3, 5, 3, padding=1, generator=0)
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 3), dtype=np.float32).transpose(0, 3, 1, 2)
    layer.eval()
    with recorded() as calls:
        y = layer(x)
    replay = Replay(calls, [x], [layer.weight.data, layer.bias.data], y, 10**6)
    x *= 2
    layer.weight.data += 1
    replay()
    np.testing.assert_array_equal(replay.output, layer(x))
    assert not np.array_equal(replay.output, y)


def test_what_cannot_be_replayed():
    x = np.ones((1, 2, 3, 3), np.float32)
    with recorded() as calls:
        y = conv_layers.Conv2d(2, 2, 1, generator=0)(x)
    with pytest.raises(CannotReplay, match="output"):
        Replay(calls, [x], [], y + 1, 10**6)
    with pytest.raises(CannotReplay, match="bytes"):
        Replay(calls, [x], [], y, 10)
    with pytest.raises(CannotReplay, match="output"):
        Replay([], [x], [], x, 10**6)
    with recorded() as calls:
        pass
    assert calls == []
