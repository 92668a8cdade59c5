"""What a layer returned belongs to the caller, who may change it before backward: ``y = layer(x); y -= target; layer.backward(y)``."""

import numpy as np
import pytest

from hcrot.layers.dropout import Dropout
from hcrot.layers.reshape import Flatten
from hcrot.module import Identity
from support.module_cases import CASES, Use

# Those that return their input as it is, or a view of it. Changing y is then changing x, which nobody else should be keeping.
SAME_ARRAY = {Identity, Flatten, Dropout}


@pytest.mark.parametrize("case", [case for case in CASES if Use(case).has_backward], ids=lambda case: case.name)
def test_backward_does_not_depend_on_what_was_done_to_the_output(case):
    expected, use = Use(case).results(), Use(case)
    y = use.forward()[0]
    y *= -3
    y += 100
    changed = {f"input gradient {i}": gradient for i, gradient in enumerate(use.backward())}
    changed |= {f"gradient of {name}": parameter.grad for name, parameter in use.module.named_parameters()}
    assert changed
    for name, array in changed.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("training", [True, False])
def test_the_output_is_an_array_of_its_own(case, training):
    use = Use(case)
    use.module.train(training)
    y = use.forward()[0]
    if type(use.module) not in SAME_ARRAY:
        assert not any(np.shares_memory(y, x) for x in use.inputs if isinstance(x, np.ndarray))
        assert not any(np.shares_memory(y, parameter.data) for _, parameter in use.module.named_parameters())


def test_the_inputs_gradient_is_no_array_that_a_parameters_gradient_shares():
    for case in CASES:
        use = Use(case)
        if use.has_backward:
            use.forward()
            gradients = use.backward()
            assert not any(np.shares_memory(dx, p.grad) for dx in gradients for _, p in use.module.named_parameters()), case.name
