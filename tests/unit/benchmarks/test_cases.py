"""Case studies on a world in which the right answer is known: people of a block like the items of their block."""

import torch
from torch import Tensor

from benchmarks.evaluation.cases import Case, Readouts, choose, told
from service.recommender.graph import InteractionGraph
from tests.unit.learning import blocks


def readout(graph: InteractionGraph, n_blocks: int) -> Tensor:
    """(n_nodes, n_blocks + 1) each row points to its block, with a little of its own to break ties."""
    users = torch.arange(graph.n_users) * n_blocks // graph.n_users
    items = torch.arange(graph.n_items) * n_blocks // graph.n_items
    own = torch.cat((torch.ones(graph.n_users), torch.linspace(0.1, 0, graph.n_items)))
    return torch.cat((torch.eye(n_blocks)[torch.cat((users, items))], own[:, None]), dim=1)


def test_cases_are_three_people_and_interactions_that_they_have() -> None:
    """One film, ten films, half of an account; the same ones again."""
    graph = blocks(n_blocks=3, users=60, items=120, share=0.4, seed=1)
    small = graph.edges[:, (graph.edges[0] >= 20) | (graph.edges[1] < 40)]
    graph = InteractionGraph(graph.n_users, graph.n_items, small)

    cases = choose(readout(graph, 3), graph)

    assert len({case.user for case in cases[:2]}) == 2
    assert [case.items.numel() for case in cases[:2]] == [1, 10]
    assert cases[2].items.numel() == int(graph.user_degree[cases[2].user]) // 2
    assert all(bool(graph.contains(case.edges).all()) for case in cases)
    assert [case.items.tolist() for case in choose(readout(graph, 3), graph)] == [case.items.tolist() for case in cases]


def test_a_case_says_what_left_what_came_and_what_stayed() -> None:
    """A method that turns a person away from one item moves it out of the list, and its likes with it."""
    known = InteractionGraph(1, 60, torch.tensor([[0, 0], [58, 59]]))
    before = torch.zeros(61, 2)
    before[0] = torch.tensor([1.0, 0.0])
    before[1:, 0] = torch.arange(60, 0, -1).float()
    after = before.clone()
    after[1, 0] = 0.0  # the first item falls to the end
    titles = [f"Film {n}" for n in range(60)]
    case = Case("One film", 0, torch.tensor([58]))

    found = told(case, Readouts([before], [after], [before]), known, titles, torch.tensor([0, 1, 59]))

    assert [row["title"] for row in found["left"]] == ["Film 0"]
    assert [row["title"] for row in found["came"]] == ["Film 20"]
    assert len(found["stayed"]) == 19
    assert found["left"][0]["rank"] == {"before": 1, "after": 58, "retrained": 1}
    assert (found["left_retrained"], found["left_both"]) == (0, 0)
    assert [row["title"] for row in found["similar"]] == ["Film 0", "Film 1"]
    assert found["change_similar"]["after"] < 0 == found["change_similar"]["retrained"]
    assert found["change_rest"]["after"] == 0
    assert found["erased"][0]["rank"]["before"] == 59
