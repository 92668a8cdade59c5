import json

import numpy as np
import pytest

from hcrot.data import Batches


def make(count=130, batch_size=64, seed=0):
    items = np.arange(count)
    return Batches(items, 10 * items, batch_size=batch_size, generator=np.random.default_rng(seed))


@pytest.mark.parametrize(("count", "batch_size", "sizes"), [
    (100, 64, [64, 36]),  # B41: the predecessor made one batch of 100,
    (130, 64, [64, 64, 2]),  # two of 65,
    (10, 64, [10]),  # and failed here
    (128, 64, [64, 64]),
    (5, 1, [1] * 5),
    (1, 1, [1]),
])
def test_every_item_once_per_epoch_and_the_last_batch_kept(count, batch_size, sizes):
    batches = make(count, batch_size)
    assert len(batches) == len(sizes)
    for _ in range(3):
        epoch = [items for items, _ in batches]
        assert [len(items) for items in epoch] == sizes
        np.testing.assert_array_equal(np.sort(np.concatenate(epoch)), np.arange(count))


def test_arrays_stay_in_step():
    for items, tens in make():
        np.testing.assert_array_equal(tens, 10 * items)


def test_rows_keep_their_shape_and_dtype_and_are_copies():
    images, labels = np.zeros((7, 1, 4, 3), np.float32), np.zeros(7, np.uint8)
    for generator in (np.random.default_rng(0), None):
        for image_batch, label_batch in Batches(images, labels, batch_size=4, generator=generator):
            assert image_batch.shape[1:] == (1, 4, 3) and image_batch.dtype == np.float32
            assert label_batch.dtype == np.uint8
            image_batch += 1
            label_batch += 1
    assert not images.any() and not labels.any()


def order(batches):
    return np.concatenate([items for items, _ in batches])


def test_a_fresh_order_each_epoch():
    """B41: the predecessor shuffled once, at construction."""
    batches = make()
    first, second = order(batches), order(batches)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.arange(130))


def test_the_generator_alone_decides_the_order():
    """B41: the predecessor drew from the module `random`."""
    np.random.seed(0)  # noqa: NPY002 (the global state is what this test watches)
    global_next = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    a, b, other = make(seed=3), make(seed=3), make(seed=4)
    for _ in range(2):
        first = order(a)
        np.testing.assert_array_equal(first, order(b))
        assert not np.array_equal(first, order(other))
    assert np.random.random() == global_next  # noqa: NPY002


def test_the_order_does_not_depend_on_what_else_draws_from_the_generator():
    generator = np.random.default_rng(3)
    batches = Batches(np.arange(130), np.arange(130), batch_size=64, generator=generator)
    reference = make(seed=3)
    for _ in range(3):
        generator.normal(size=17)
        np.testing.assert_array_equal(order(batches), order(reference))


def test_any_bit_generator_serves():
    generator = np.random.Generator(np.random.MT19937(5))
    batches = Batches(np.arange(20), batch_size=6, generator=generator)
    json.dumps(batches.state_dict())
    assert sorted(np.concatenate([items for (items,) in batches])) == list(range(20))


def test_without_a_generator_items_come_as_stored():
    batches = Batches(np.arange(7), batch_size=3, generator=None)
    for _ in range(2):
        assert [list(items) for (items,) in batches] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_pass_that_was_left_is_continued():
    """B41: in the predecessor `break` left the cursor in the middle of the next epoch."""
    batches, reference = make(10, 3), make(10, 3)
    taken = []
    for items, _ in batches:
        taken.append(items)
        if len(taken) == 2:
            break
    assert (batches.epoch, batches.position) == (0, 6)
    taken += [items for items, _ in batches]
    np.testing.assert_array_equal(np.concatenate(taken), order(reference))
    np.testing.assert_array_equal(order(batches), order(reference))


def test_leaving_at_the_last_batch_ends_the_epoch():
    batches, reference = make(10, 5), make(10, 5)
    for number, _ in enumerate(batches):
        if number == 1:
            break
    assert (batches.epoch, batches.position) == (1, 0)
    order(reference)
    np.testing.assert_array_equal(order(batches), order(reference))


@pytest.mark.parametrize("interrupted_after", range(1, 13))
def test_resuming_gives_exactly_the_remaining_batches(interrupted_after):
    """Three epochs of four batches, stopped after each possible batch and resumed in what would be a new process."""
    whole = [items for batches in [make(10, 3, seed=1)] for _ in range(3) for items, _ in batches]

    before, taken = make(10, 3, seed=1), []
    while len(taken) < interrupted_after:
        for items, _ in before:
            taken.append(items)
            if len(taken) == interrupted_after:
                state = json.dumps(before.state_dict())
                break

    after = make(10, 3, seed=99)
    after.load_state_dict(json.loads(state))
    for _ in range(after.epoch, 3):
        taken += [items for items, _ in after]

    assert len(taken) == len(whole) == 12
    for got, expected in zip(taken, whole, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_resuming_with_another_batch_size_still_takes_every_item_once():
    before = make(20, 4)
    first, _ = next(iter(before))
    after = make(20, 7, seed=8)
    after.load_state_dict(before.state_dict())
    np.testing.assert_array_equal(np.sort(np.concatenate([first, order(after)])), np.arange(20))


@pytest.mark.parametrize(("change", "message"), [
    ({"count": 11}, "the state is of 11 items, here are 10"),
    ({"seed": None}, "both be shuffled"),
    ({"position": 10}, "position below 10"),
    ({"position": -1}, "integers >= 0"),
    ({"epoch": 1.5}, "integers >= 0"),
    ({"seed": "7"}, "integers >= 0"),
    ({"more": 1}, "expected the keys"),
])
def test_a_bad_state_is_refused_and_changes_nothing(change, message):
    batches, reference = make(10, 3), make(10, 3)
    with pytest.raises(ValueError, match=f"Batches.load_state_dict: .*{message}"):
        batches.load_state_dict(batches.state_dict() | change)
    np.testing.assert_array_equal(order(batches), order(reference))


def test_an_incomplete_state_is_refused():
    with pytest.raises(ValueError, match="expected the keys"):
        make().load_state_dict({})


@pytest.mark.parametrize(("arrays", "options", "error", "message"), [
    ([], {}, ValueError, r"got lengths \[\]"),
    ([np.zeros(3), np.zeros(4)], {}, ValueError, r"of one length.*\[3, 4\]"),
    ([np.zeros((0, 2))], {}, ValueError, r"got lengths \[0\]"),
    ([{1, 2, 3}], {}, TypeError, "got set"),
    ([iter([1, 2])], {}, TypeError, "got list_iterator"),
    ([np.zeros(())], {}, TypeError, r"got an array of shape \(\)"),
    ([np.zeros(3)], {"batch_size": 4, "drop_last": True}, ValueError, "at most the number of items 3, got 4"),
    ([np.zeros(3)], {"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    ([np.zeros(3)], {"batch_size": 2.5}, TypeError, "batch_size must be an int, got 2.5"),
    ([np.zeros(3)], {"batch_size": True}, TypeError, "batch_size must be an int, got True"),
    ([np.zeros(3)], {"generator": 4.2}, TypeError, "generator must be a numpy.random.Generator or an int .*, got 4.2"),
])
def test_bad_arguments(arrays, options, error, message):
    with pytest.raises(error, match=f"Batches: .*{message}"):
        Batches(*arrays, **({"batch_size": 2, "generator": None} | options))


def test_integers_of_numpy():
    batches, same = make(300, np.uint8(200), seed=0), Batches(np.arange(300), 10 * np.arange(300), batch_size=200, generator=np.int64(0))
    next(iter(batches))
    same.load_state_dict({name: np.int64(value) for name, value in batches.state_dict().items()})
    assert same.state_dict() == batches.state_dict() and json.loads(json.dumps(same.state_dict())) == same.state_dict()
    np.testing.assert_array_equal(next(iter(same))[0], next(iter(batches))[0])


def test_items_of_any_collection_become_arrays():
    class Pairs:
        """As a Dataset of PyTorch's."""

        def __len__(self):
            return 5

        def __getitem__(self, index):
            assert type(index) is int
            return np.full((1, 2), index, np.float32), index

    batches = Batches(Pairs(), list("abcde"), batch_size=3, generator=None)
    first, second = batches
    images, labels, letters = first
    assert images.shape == (3, 1, 2) and images.dtype == np.float32
    assert labels.tolist() == [0, 1, 2] and letters.tolist() == ["a", "b", "c"]
    assert [len(array) for array in second] == [2, 2, 2]


def test_an_array_mapped_from_a_file_gives_arrays_in_memory(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(6))
    [(batch,)] = Batches(np.load(tmp_path / "images.npy", mmap_mode="r"), batch_size=6, generator=None)
    assert type(batch) is np.ndarray and batch.flags.writeable


def test_drop_last_leaves_out_what_is_smaller():
    batches = Batches(np.arange(10), batch_size=4, generator=3, drop_last=True)
    assert len(batches) == 2
    for epoch in range(3):
        assert batches.epoch == epoch and batches.position == 0
        (first,), (second,) = batches
        assert len({*first, *second}) == 8


def test_a_run_resumed_with_a_larger_batch_drops_what_is_left():
    items = np.arange(10)
    small, large = Batches(items, batch_size=4, generator=3, drop_last=True), Batches(items, batch_size=7, generator=3, drop_last=True)
    next(iter(small))
    large.load_state_dict(small.state_dict())
    assert [len(batch) for batch, in large] == []
    assert [len(batch) for batch, in large] == [7]
