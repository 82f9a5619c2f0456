"""Targets in surrogate keys."""

import numpy as np

from service.worker.repository.queue import TargetRow
from service.worker.targets import ForgetSet, TargetKeys, TargetsByMode


def test_targets_are_gathered_by_mode_and_kind() -> None:
    """Each kind has its own array."""
    targets = TargetsByMode.of(
        [
            TargetRow("forget", "interaction", 1, 2),
            TargetRow("forget", "user", 3, None),
            TargetRow("dislike", "item", None, 4),
        ]
    )

    forget, dislike = targets.of_mode("forget"), targets.of_mode("dislike")
    assert forget.pairs.tolist() == [[1], [2]]
    assert (forget.users.tolist(), forget.items.tolist()) == ([3], [])
    assert dislike.items.tolist() == [4]


def test_targets_whose_id_was_not_known_name_nothing() -> None:
    """No model has learnt what was never recorded."""
    targets = TargetsByMode.of(
        [
            TargetRow("forget", "interaction", None, 2),
            TargetRow("forget", "interaction", 1, None),
            TargetRow("forget", "user", None, None),
        ]
    )

    forget = targets.of_mode("forget")
    assert forget.pairs.shape == (2, 0)
    assert not forget.users.size


def test_a_ledger_grows_by_what_is_settled() -> None:
    """Targets, ids and the covered seq go together."""
    forget_set = ForgetSet(TargetsByMode(), [], 5)

    forget_set.extend(TargetsByMode({"forget": TargetKeys(users=np.array([9]))}), ["a"], 7)
    forget_set.extend(TargetsByMode({"forget": TargetKeys(users=np.array([8]))}), [], 0)

    assert forget_set.targets.of_mode("forget").users.tolist() == [9, 8]
    assert (forget_set.ids, forget_set.seq) == (["a"], 7)
