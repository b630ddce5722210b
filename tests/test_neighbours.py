"""Neighbours and groups: both linking rules, the segmentation check, tables (O1, O2)."""

import time

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from balrogutils.blends.neighbours import (
    BoxRule,
    RadiusRule,
    fof_table,
    group_numbers,
    join_pairs,
    nbr_table,
    pairs_of_table,
    seg_pairs,
)
from balrogutils.errors import FitError, InputError


def boxes(rng, count, side=2000):
    return rng.integers(0, side, count), rng.integers(0, side, count), rng.choice([32, 48, 64, 96, 256], count)


def slow_pairs(rule, row, col, size):
    """The rule of M 5.1, pair by pair."""
    row, col, size = (np.array(x, float) for x in (row, col, size))
    for k in np.flatnonzero(size == rule.maxsize_to_replace):
        size[k] = rule.new_maxsize
        row[k] -= (rule.new_maxsize - rule.maxsize_to_replace) / 2
        col[k] -= (rule.new_maxsize - rule.maxsize_to_replace) / 2
    found = []
    for i in range(len(size)):
        for j in range(i + 1, len(size)):
            buff = rule.buff_frac * {"tot": sum, "min": min, "max": max}[rule.buff_type]((size[i], size[j]))
            left, right = col[i] > col[j] + size[j] - buff, col[i] + size[i] < col[j] + buff
            above, below = row[i] + size[i] < row[j] + buff, row[i] > row[j] + size[j] - buff
            if not (left or right or above or below):
                found.append((i, j))
    return np.array(found, np.int64).reshape(-1, 2)


def ordered(pairs):
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_and_one_object_have_no_neighbours(count):
    zeros = np.zeros(count, int)
    assert BoxRule().pairs(zeros, zeros, zeros + 48).shape == (0, 2)
    assert RadiusRule().pairs(zeros, zeros, zeros).shape == (0, 2)
    pairs, unknown = seg_pairs(zeros + 1, [(k, np.ones((4, 4), int)) for k in range(count)])
    assert pairs.shape == (0, 2)
    assert unknown == 0
    group = group_numbers(count, pairs)
    assert np.array_equal(group, zeros)
    table = nbr_table(zeros + 7, pairs)
    assert table["nbr_number"].tolist() == [-1] * count
    assert fof_table(zeros + 7, group)["number"].tolist() == [7] * count


def test_objects_without_a_place_have_no_neighbours():
    row, col, size = np.array([10, -9999, -9999]), np.array([10, -9999, -9999]), np.array([48, 48, 48])
    assert BoxRule().pairs(row, col, size).shape == (0, 2)
    assert RadiusRule().pairs(row, col, size * 100.0).shape == (0, 2)
    assert RadiusRule().pairs(np.array([0.0, np.nan]), np.zeros(2), np.ones(2)).shape == (0, 2)


def test_o2_two_boxes_of_48_are_linked_up_to_a_shift_of_24():
    size, row = np.array([48, 48]), np.zeros(2, int)
    for shift in (0, 23, 24):
        assert len(BoxRule().pairs(row, np.array([0, shift]), size)) == 1
        assert len(BoxRule().pairs(np.array([shift, 0]), row, size)) == 1
    assert len(BoxRule().pairs(row, np.array([0, 25]), size)) == 0


def test_a_box_of_256_counts_as_384():
    row, size = np.zeros(2, int), np.array([256, 48])
    # Box from -64 to 320; the margin is a quarter of 384 + 48.
    assert len(BoxRule().pairs(row, np.array([0, 320 - 108]), size)) == 1
    assert len(BoxRule().pairs(row, np.array([0, 320 - 107]), size)) == 0


@pytest.mark.parametrize("kind", ["tot", "min", "max"])
def test_boxes_are_linked_as_pair_by_pair(kind):
    row, col, size = boxes(np.random.default_rng(1), 300, 1500)
    rule = BoxRule(buff_type=kind)
    pairs = rule.pairs(row, col, size)
    assert len(pairs) > 100
    assert np.array_equal(ordered(pairs), slow_pairs(rule, row, col, size))


def test_radii_are_linked_as_pair_by_pair():
    rng = np.random.default_rng(2)
    row, col, radius = rng.uniform(0, 500, 200), rng.uniform(0, 500, 200), rng.uniform(0, 30, 200)
    radius[0] = np.nan
    pairs = RadiusRule(multiple=1.5, low=3.0, high=25.0, padding=2.0).pairs(row, col, radius)
    r = np.clip(np.nan_to_num(radius * 1.5, nan=3.0), 3.0, 25.0) + 2.0
    slow = [
        (i, j)
        for i in range(200)
        for j in range(i + 1, 200)
        if np.hypot(row[i] - row[j], col[i] - col[j]) < r[i] + r[j]
    ]
    assert np.array_equal(ordered(pairs), np.array(slow))


def test_labels_in_the_segmentation_are_neighbours():
    number = np.array([10, 4, 7, 2])
    stamps = [np.zeros((5, 5), int) for _ in number]
    stamps[0][:2] = 10
    stamps[0][3] = 2
    stamps[1][1] = 4
    stamps[1][4, 4] = 99
    stamps[3][0, 0] = 10
    pairs, unknown = seg_pairs(number, enumerate(stamps))
    assert join_pairs(pairs).tolist() == [[0, 3]]
    assert unknown == 1


def test_pairs_of_bands_are_joined_once():
    joined = join_pairs(np.array([[2, 1], [0, 3]]), np.array([[1, 2], [4, 4]]))
    assert joined.tolist() == [[0, 3], [1, 2]]


def test_o1_groups_are_connected_components_whatever_the_order():
    rng = np.random.default_rng(3)
    count = 400
    pairs = join_pairs(rng.integers(0, count, (300, 2)))
    group = group_numbers(count, pairs)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    assert len(set(zip(group, labels, strict=True))) == len(set(group)) == len(set(labels))
    # Counted from 0 in the order of first members.
    assert np.array_equal(np.unique(group, return_index=True)[1], np.sort(np.unique(group, return_index=True)[1]))
    order = rng.permutation(count)
    place = np.argsort(order)
    mixed = group_numbers(count, place[pairs])
    assert len(set(zip(mixed, group[order], strict=True))) == len(set(group))
    # Rows that say that there is no neighbour change nothing.
    number = rng.permutation(count) + 1
    table = nbr_table(number, pairs)
    assert np.array_equal(pairs_of_table(number, table), pairs)
    assert np.array_equal(group_numbers(count, pairs_of_table(number, table)), group)


def test_tables_hold_every_object_and_both_directions():
    number = np.array([5, 6, 7])
    table = nbr_table(number, np.array([[0, 2]]))
    assert table.tolist() == [(5, 7), (6, -1), (7, 5)]
    groups = fof_table(number, group_numbers(3, np.array([[0, 2]])))
    assert groups.tolist() == [(0, 5), (0, 7), (1, 6)]


def test_wrong_pairs_are_refused():
    with pytest.raises(FitError, match="beyond the 3"):
        group_numbers(3, np.array([[0, 3]]))
    with pytest.raises(InputError, match="object 9"):
        pairs_of_table(np.array([1, 2]), nbr_table(np.array([1, 9]), np.array([[0, 1]])))


def test_a_tile_is_linked_in_a_blink():
    row, col, size = boxes(np.random.default_rng(4), 20000, 9700)
    started = time.process_time()
    pairs = BoxRule(maxsize_to_replace=9999).pairs(row, col, size)
    group = group_numbers(len(row), pairs)
    assert len(nbr_table(np.arange(len(row)), pairs)) >= len(row)
    assert group.max() < len(row)
    assert time.process_time() - started < 10.0
