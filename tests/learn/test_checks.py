"""What the comparisons of exercises accept, and what they say otherwise."""

import numpy as np
import pytest

import hcrot
from hcrot.learn import Check, Wrong


class Scaled(hcrot.Module):
    """y = W x, entry by entry, with a backward that can go wrong."""

    def __init__(self, fault=""):
        self.weight, self.fault = hcrot.Parameter(np.ones((2, 3))), fault

    def forward(self, x):
        self.save(x)
        return x * self.weight.data

    def backward(self, dy):
        x = self.saved()
        if self.fault == "set":
            self.weight.grad[...] = dy * x
        elif self.fault == "replaced":
            self.weight.grad = dy * x
        elif self.fault != "frozen":
            self.weight.grad += dy * x
        dx = dy * self.weight.data
        return {"nothing": None, "transposed": dx.T, "summed": dx.sum(axis=0), "twice": 2 * dx, "negative": -dx}.get(self.fault, dx)


@pytest.mark.parametrize(("fault", "message"), [
    ("nothing", "input 0 there is none"), ("transposed", r"has the shape \(3, 2\), it must be that of input 0, \(2, 3\): is a transpose"),
    ("summed", r"shape \(3,\).*a sum over too many axes"), ("twice", "2 times too large"), ("negative", "is a sign wrong"),
    ("frozen", "weight .* stays zero"), ("set", "assigns to .grad instead of adding"),
    ("replaced", r"\(2, 3\):\n  weight: backward replaced the array .grad instead .*: write \+= instead of =$"),
])  # fmt: skip
def test_gradients(fault, message):
    check = Check()
    check.gradients(Scaled(), check.normal(2, 3))
    with pytest.raises(Wrong, match=message):
        check.gradients(Scaled(fault), check.normal(2, 3))


def test_what_is_wrong_with_two_parameters_is_said_once():
    check = Check()
    with pytest.raises(Wrong) as error:
        check.gradients(hcrot.Sequential(Scaled("set"), Scaled("set")), check.normal(2, 3))
    assert str(error.value).count("\n") == 1 and "\n  0.weight and 1.weight: backward assigns to .grad" in str(error.value)


def test_inputs_are_told_by_their_shapes():
    class Sum(hcrot.Module):
        """y = x + a + b for a list [a, b], with a backward of which nothing is right."""

        def forward(self, x, terms):
            return x + sum(terms.pop() for _ in range(len(terms)))

        def backward(self, dy, dterms=None):
            return 0 * dy

    check = Check()
    for terms, said in (2, "a list of arrays of the shapes (2, 3) and (2, 3):"), (1, "a list of one array of the shape (2, 3):"):
        with pytest.raises(Wrong) as error:
            check.gradients(Sum(), check.normal(2, 3), [check.normal(2, 3) for _ in range(terms)])
        assert f"for an input of the shape (2, 3), {said}\n" in str(error.value)


def test_gradients_that_vanish_along_the_input_itself_are_looked_at_elsewhere():
    class Direction(hcrot.Module):
        """y = x / |x|, whose slope along x is zero."""

        def forward(self, x):
            return x / np.linalg.norm(x)

        def backward(self, dy):
            return np.zeros_like(dy)

    check = Check()
    with pytest.raises(Wrong, match="stays zero"):
        check.gradients(Direction(), check.normal(2, 3))
    check = Check()
    with pytest.raises(Wrong, match="its report tells more"):
        check.agree(Direction(), check.normal(2, 3))


def test_adds():
    check = Check()
    check.adds(Scaled(), check.normal(2, 3))
    with pytest.raises(Wrong, match="the gradient of weight is not the sum of both"):
        check.adds(Scaled("set"), check.normal(2, 3))


@pytest.mark.parametrize(("found", "message"), [
    (None, "is a return missing"), ("text", "is a str"), (np.ones((3, 2)), "a transpose"), (np.ones((1, 2, 3)), "a sum over some axes"),
    (np.full((2, 3), np.nan), "NaN in 6 of 6"), (np.arange(6.0).reshape(2, 3) / 4, "4 times too small"),
    (np.arange(6.0).reshape(2, 3) * [[1], [9]], r"at \(1, 2\) is 45, expected 5; 3 of 6"),
])  # fmt: skip
def test_equal(found, message):
    expected = np.arange(6.0).reshape(2, 3)
    Check().equal("it", expected + 1e-7, expected)
    Check().equal("it", 3, 3.0)
    with pytest.raises(Wrong, match=message):
        Check().equal("it", found, expected)


def test_a_known_mistake_is_told():
    found = np.array([1.0, 1, 1])
    with pytest.raises(Wrong, match=r"at \(1,\) is 1, expected 2; 1 of 3 numbers differ: use \+=$"):
        Check().equal("it", found, [1, 2, 1], mistakes={"a sign": -found, "use +=": found})


def test_same_as():
    check, x = Check(), np.arange(3.0)
    check.same_as("sort", np.sort, lambda a: np.array(sorted(a)), x)
    check.same_as("both", lambda a: (a, 1), lambda a: (a, 1.0), x)
    with pytest.raises(Wrong, match="writes into input 0"):
        check.same_as("twice", lambda a: np.multiply(a, 2, out=a), lambda a: 2 * a, x)
    with pytest.raises(Wrong, match="expected 2 results, got ndarray"):
        check.same_as("both", lambda a: a, lambda a: (a, 1.0), x)


def test_refuses():
    check = Check()
    check.refuses("it", lambda: int("x"), ValueError, "invalid")
    with pytest.raises(Wrong, match="does not say 'groups'"):
        check.refuses("it", lambda: int("x"), ValueError, "groups")
    with pytest.raises(Wrong, match="expected a ValueError or TypeError, but nothing"):
        check.refuses("it", lambda: 1, (ValueError, TypeError))
