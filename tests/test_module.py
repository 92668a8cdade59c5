"""Module, Identity and Sequential: the tree, the modes and the state."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hcrot.layers.conv import Conv2d
from hcrot.layers.dropout import Dropout
from hcrot.layers.linear import Linear
from hcrot.module import Identity, Module, Parameter, Sequential


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Tree(Module):
    """Every kind of part: a parameter, a module, a list of modules, and things that are none."""

    def __init__(self, generator):
        self.stem = Linear(2, 3, generator=generator)
        self.scale = Parameter(np.ones(3, np.float32))
        self.blocks = [Linear(3, 3, bias=False, generator=generator), Sequential(Linear(3, 3, generator=generator), Identity())]
        self.size, self.name, self.nothing, self.numbers, self.table = 3, "tree", None, [1, 2], np.ones(4)


TREE_NAMES = ["scale", "stem.weight", "stem.bias", "blocks.0.weight", "blocks.1.0.weight", "blocks.1.0.bias"]


# ---------------------------------------------------------------- the tree


def test_names_follow_the_order_of_assignment(rng):
    tree = Tree(rng)
    assert [name for name, _ in tree.named_parameters()] == TREE_NAMES
    assert [name for name, _ in tree.named_children()] == ["stem", "blocks.0", "blocks.1"]
    assert [name for name, _ in tree.named_modules()] == ["", "stem", "blocks.0", "blocks.1", "blocks.1.0", "blocks.1.1"]
    assert list(tree.modules()) == [tree, tree.stem, tree.blocks[0], tree.blocks[1], tree.blocks[1][0], tree.blocks[1][1]]
    assert list(tree.children()) == [tree.stem, *tree.blocks]
    assert tree.parameters()[0] is tree.scale
    assert tree.num_parameters() == 3 + 6 + 3 + 9 + 9 + 3


def test_names_under_a_prefix(rng):
    assert [name for name, _ in Sequential(Linear(2, 2, generator=rng)).named_modules("net")] == ["net", "net.0"]


def test_super_init_is_not_needed_and_modules_share_nothing(rng):
    """B11: the predecessor kept the graph of all models in one class attribute."""
    a, b = Linear(2, 2, generator=rng), Linear(2, 2, generator=rng)
    a(np.ones((1, 2), np.float32))
    with pytest.raises(RuntimeError):
        b.backward(np.ones((1, 2), np.float32))
    a.eval()
    assert b.training


def test_call_is_forward_with_its_options():
    class Power(Module):
        def forward(self, x, exponent=1):
            return x**exponent

    assert Power()(3, exponent=2) == 9


def test_a_bare_module_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        Module()(1)
    with pytest.raises(NotImplementedError, match="Module has no backward"):
        Module().backward(1)


def test_zero_grad_keeps_the_arrays(rng):
    tree = Tree(rng)
    grads = [parameter.grad for parameter in tree.parameters()]
    for grad in grads:
        grad[...] = 3
    tree.zero_grad()
    for parameter, grad in zip(tree.parameters(), grads, strict=True):
        assert parameter.grad is grad
        assert not grad.any()


# ---------------------------------------------------------------- generators


def test_generators_have_names(rng):
    model = Sequential(Dropout(0.5, generator=rng), Sequential(Dropout(0.1)))
    assert [name for name, _ in model.named_generators()] == ["0.generator", "1.0.generator"]
    assert dict(model.named_generators())["0.generator"] is rng


# ---------------------------------------------------------------- modes


def test_train_within_inference_holds_afterwards(rng):
    linear = Linear(2, 2, generator=rng).eval()
    with linear.inference():
        linear.train()
        assert not linear.training
    assert linear.training


def test_inference_is_one_threads_affair(rng):
    tree = Tree(rng)
    with tree.inference(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: all(module.training for module in tree.modules())).result()
        assert not tree.training


def test_modes_reach_every_module(rng):
    tree = Tree(rng)
    assert all(module.training for module in tree.modules())
    assert tree.eval() is tree
    assert not any(module.training for module in tree.modules())
    assert tree.train() is tree
    assert all(module.training for module in tree.modules())


def test_inference_restores_each_modules_own_mode(rng):
    tree = Tree(rng)
    tree.stem.eval()
    with tree.inference() as same:
        assert same is tree
        assert not any(module.training for module in tree.modules())
        with tree.inference():
            pass
        assert not any(module.training for module in tree.modules())
    assert [module for module in tree.modules() if not module.training] == [tree.stem]


def test_inference_restores_after_an_exception(rng):
    tree = Tree(rng)
    with pytest.raises(KeyError), tree.inference():
        raise KeyError
    assert all(module.training for module in tree.modules())


# ---------------------------------------------------------------- dtype


def test_astype_turns_parameters_and_gradients_and_keeps_the_memory_order(rng):
    conv = Conv2d(2, 3, (3, 2), generator=rng)
    strides = conv.weight.data.strides
    before = conv.state_dict()
    conv.weight.grad[...] = 2
    assert conv.astype(np.float64) is conv
    for name, parameter in conv.named_parameters():
        assert parameter.data.dtype == parameter.grad.dtype == np.float64
        np.testing.assert_array_equal(parameter.data, before[name])
    assert conv.weight.data.strides == conv.weight.grad.strides == tuple(2 * stride for stride in strides)
    assert (conv.weight.grad == 2).all()
    assert conv(np.ones((1, 2, 4, 4))).dtype == np.float64
    assert conv.astype("float32")(np.ones((1, 2, 4, 4), np.float32)).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.int32, complex])
def test_astype_knows_two_dtypes(dtype):
    linear = Linear(2, 2)
    with pytest.raises(TypeError, match="Linear.astype: dtype must be float32 or float64, got"):
        linear.astype(dtype)
    assert linear.weight.data.dtype == np.float32


# ---------------------------------------------------------------- state


def test_state_dict_holds_copies(rng):
    tree = Tree(rng)
    state = tree.state_dict()
    assert list(state) == TREE_NAMES
    state["stem.weight"][...] = 9
    assert not (tree.stem.weight.data == 9).any()


def test_what_forward_keeps_is_no_parameter(rng):
    """B14: one forward turned the predecessor's caches into parameters, and 991,201 of them into 1,860,129."""
    model = Sequential(Conv2d(1, 4, 3, generator=rng), Conv2d(4, 2, 1, generator=rng))
    keys, count = list(model.state_dict()), model.num_parameters()
    y = model(rng.standard_normal((2, 1, 5, 6)).astype(np.float32))
    assert list(model.state_dict()) == keys == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert model.num_parameters() == count == 4 * 9 + 4 + 8 + 2
    model.backward(y)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_state_goes_over_to_another_model_in_place(rng, dtype):
    """B15: through lists and Sequential; B20: into the arrays that optimizers and averages hold on to."""
    source, target = Tree(rng), Tree(rng)
    arrays = [parameter.data for parameter in target.parameters()]
    state = {name: array.astype(dtype) for name, array in reversed(source.state_dict().items())}
    target.load_state_dict(state)
    for parameter, array, (name, values) in zip(target.parameters(), arrays, source.state_dict().items(), strict=True):
        assert parameter.data is array
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, values.astype(dtype), err_msg=name)


BAD_STATES = {
    "missing stem.bias": lambda state: state.pop("stem.bias"),
    "missing scale": lambda state: state.clear(),
    "unexpected blocks.2.weight": lambda state: state.update({"blocks.2.weight": np.ones(3)}),
    "unexpected top": lambda state: state.update(top=np.ones(3)),
    "scale has shape (1,), expected (3,)": lambda state: state.update(scale=np.ones(1)),
    "stem.weight has shape (2, 3), expected (3, 2)": lambda state: state.update({"stem.weight": state["stem.weight"].T}),
    "scale has dtype int64, expected a floating-point one": lambda state: state.update(scale=np.ones(3, np.int64)),
    "scale has dtype complex128, expected a floating-point one": lambda state: state.update(scale=np.ones(3, complex)),
}


@pytest.mark.parametrize("problem", BAD_STATES)
def test_loading_is_strict_and_all_or_nothing(rng, problem):
    """B16: an unknown key was reported as missing, missing ones were ignored, and {} succeeded."""
    tree = Tree(rng)
    before, state = tree.state_dict(), {name: array + 1 for name, array in tree.state_dict().items()}
    BAD_STATES[problem](state)
    with pytest.raises(ValueError, match=r"^Tree\.load_state_dict: ") as caught:
        tree.load_state_dict(state)
    assert problem in str(caught.value)
    for name, array in tree.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_loading_names_every_problem(rng):
    state = Tree(rng).state_dict()
    del state["stem.bias"], state["scale"]
    state |= {"a": np.ones(1), "stem.weight": np.ones(5)}
    with pytest.raises(ValueError, match="missing scale; missing stem.bias; unexpected a; stem.weight has shape"):
        Tree(rng).load_state_dict(state)


# ---------------------------------------------------------------- looking at it, Identity, Sequential


def test_repr_shows_the_tree(rng):
    assert repr(Identity()) == "Identity()"
    assert repr(Sequential()) == "Sequential()"
    assert repr(Sequential(Linear(2, 3), Sequential(Identity()))) == (
        "Sequential(\n  (0): Linear(2, 3, bias=True)\n  (1): Sequential(\n    (0): Identity()\n  )\n)"
    )
    assert repr(Tree(rng)).splitlines()[:3] == ["Tree(", "  (stem): Linear(2, 3, bias=True)", "  (blocks.0): Linear(3, 3, bias=False)"]


def test_identity_is_one_both_ways():
    """S1-18."""
    x = np.arange(3)
    module = Identity()
    assert module(x) is x
    assert module.backward(x) is x


def test_sequential_runs_forwards_and_backwards(rng):
    layers = [Linear(3, 4, generator=rng), Identity(), Linear(4, 2, generator=rng)]
    model, x, dout = Sequential(*layers), rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    model.astype(np.float64)
    with model.inference():
        expected = layers[2](layers[0](x))
    np.testing.assert_allclose(model(x), expected)
    np.testing.assert_allclose(model.backward(dout), dout @ layers[2].weight.data @ layers[0].weight.data)
    assert len(model) == 3
    assert model[2] is model[-1] is layers[2]
    assert list(model) == layers
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_a_subclass_of_sequential_may_have_further_parts(rng):
    class WithHead(Sequential):
        def __init__(self):
            super().__init__(Linear(2, 3, generator=rng), Identity())
            self.head = Linear(3, 1, bias=False, generator=rng)

    model = WithHead()
    assert list(model.state_dict()) == ["0.weight", "0.bias", "head.weight"]
    assert [name for name, _ in model.named_modules()] == ["", "0", "1", "head"]


def test_sequential_takes_modules_only():
    with pytest.raises(TypeError, match="Sequential: layer 1 must be a Module, got function"):
        Sequential(Identity(), lambda x: x)


def test_shared_parameter_is_listed_once():
    tied = Module()
    tied.a = tied.b = Parameter(np.ones((2, 3), np.float32))
    assert len(tied.parameters()) == 1 and tied.num_parameters() == 6
    assert list(tied.state_dict()) == ["a", "b"]


@pytest.mark.parametrize("hidden", [[Parameter(np.ones(1))], (Identity(),), {"a": Identity()}, {"a": Parameter(np.ones(1))}])
def test_parts_that_would_never_be_found_are_refused(hidden):
    module = Module()
    module.parts = hidden
    with pytest.raises(TypeError, match=r"Module.parts: a .* is not found"):
        module.parameters()


@pytest.mark.parametrize("nested", [[[Identity()]], [(Identity(),)], {"a": [Parameter(np.ones(1))]}])
def test_nested_containers_hide_parts_and_are_refused(nested):
    module = Module()
    module.parts = nested
    with pytest.raises(TypeError, match="is not found"):
        module.parameters()
