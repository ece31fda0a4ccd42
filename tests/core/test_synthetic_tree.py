"""On a tree of features, prefixes put parents first and keep children from absorbing them."""

import pytest
import torch

from benchmarks.synthetic_tree import SEEDS, Tree, TreeRows, compare


@pytest.mark.parametrize("seed", SEEDS)
def test_parents_come_first_and_are_absorbed_at_most_half_as_often_as_without_prefixes(seed):
    outcome = compare(seed)
    plain, matryoshka = outcome[1], outcome[4]
    assert abs(plain.l0 / matryoshka.l0 - 1) < 0.03, "only equal L0 can be compared"
    assert matryoshka.early >= 0.9
    assert plain.absorption > 0.05, "without absorption in m = 1 there is nothing to compare"
    assert matryoshka.absorption <= plain.absorption / 2


def test_children_fire_only_with_their_parent_and_one_at_a_time():
    tree = Tree()
    _, _, on = TreeRows(tree, 0).draw(4096)
    parents = on[:, : tree.parents]
    children = on[:, tree.parents :].unflatten(1, (tree.parents, tree.children)).sum(2)
    assert (children <= 1).all()
    assert not (children.bool() & ~parents).any()
    assert torch.allclose(parents.double().mean(), torch.tensor(0.25).double(), atol=0.02)
