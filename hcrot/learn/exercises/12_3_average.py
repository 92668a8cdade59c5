"""The moving average of the weights, with its growing decay.

``step`` is called after each step of the optimizer. The first time the average becomes the parameter itself. At step number n > 1, with
k = n - 1, the decay is d = min(largest, (1 + k) / (10 + k)), and average <- d average + (1 - d) parameter, in place.
"""

import hcrot


class Average:
    """``averages`` follows the parameters slowly."""

    def __init__(self, parameters: list[hcrot.Parameter], largest: float = 0.9999):
        self.parameters, self.largest = parameters, largest
        self.averages = [p.data.copy() for p in parameters]
        self.n = 0

    def decay(self, n: int) -> float:
        """d at step n, which is 1 for the first."""
        # yours: begin
        k = n - 1
        return 0.0 if k == 0 else min(self.largest, (1 + k) / (10 + k))
        # yours: end

    def step(self) -> None:
        # yours: begin
        self.n += 1
        d = self.decay(self.n)
        for average, p in zip(self.averages, self.parameters, strict=True):
            average[...] = d * average + (1 - d) * p.data
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "With d = 0 the average becomes the parameter: that is the first step.",
    "Count the step before you ask for its decay.",
    "average[...] = ... writes into the array of the list; average = ... would only give a new array the same name.",
]
DERIVATION = """
With a fixed d, the average is (1 - d) sum_k d^k p_(n-k) plus d^n times the beginning: a weighted mean of the last 1 / (1 - d) or so values.
With d = 0.9999 the random beginning would count for thousands of steps, so d begins at 0 and grows: (1 + k) / (10 + k) is 2/11 at k = 1,
0.5 at k = 8 and 0.99 at k = 890. The average of the first n steps thus looks back over a part of n, whatever n is.
Source: Ho et al. 2020, appendix B, for the average; the growing decay is that of diffusers' EMAModel.
"""
WRONG = {
    "rates exchanged": ("d * average + (1 - d) * p.data", "(1 - d) * average + d * p.data"),
    "the largest decay at once": ("return 0.0 if k == 0 else min(self.largest, (1 + k) / (10 + k))", "return self.largest"),
    "no limit": ("min(self.largest, (1 + k) / (10 + k))", "(1 + k) / (10 + k)"),
    "a new array": ("average[...] = d", "average = d"),
}


def check(yours, check: Check) -> None:
    for largest in (0.9999, 0.3):
        parameters = [hcrot.Parameter(check.normal(2, 3)), hcrot.Parameter(check.normal(4))]
        mine, reference = yours.Average(parameters, largest), hcrot.EMA(parameters, largest)
        arrays = list(mine.averages)
        for n in (1, 2, 9, 1000):
            check.equal(f"the decay of step {n}, at most {largest}", mine.decay(n), reference.get_decay(n))
        for n in range(1, 6):
            for p in parameters:
                p.data[...] = check.normal(*p.shape)
            mine.step()
            with hcrot.plain():
                reference.step()
            for index, (a, b) in enumerate(zip(mine.averages, reference.averages, strict=True)):
                check.that(a is arrays[index], f"average {index} is a new array: step has to write into the one it had")
                check.equal(f"average {index} after step {n}, decay at most {largest}", a, b)
