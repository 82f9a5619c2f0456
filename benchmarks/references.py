"""Alternating least squares, as the `implicit` package has it: what many would pick instead of a graph recommender.

    EXPUNGE_DATA_DIR=... python -m benchmarks.references

prints what EASE, ALS and popularity reach on ML-1M, and chooses nothing. `python -m benchmarks.references --choose`
measures ALS with other alphas on the validation part: that is how the default was found.

EASE and popularity, which need no further package, are in `service/unlearning`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits
from torch import Tensor

from service.recommender.backbones import LightGCN
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import ranking_quality
from service.unlearning.ease import Ease
from service.unlearning.popularity import Popularity
from service.unlearning.protocol import ForgetResult, Guarantee, Unlearner
from service.unlearning.request import UnlearningRequest
from service.unlearning.state import TrainedState, zero_isolated


@dataclass
class Als(Unlearner):
    """Factors of users and items that fit a confidence-weighted 0/1 matrix; confidence of an interaction 1 + alpha.

    It forgets by being fitted anew, from the same seed, on what remains: ALS keeps no state that could be corrected.

    Guarantee: exact.
    Source: Hu, Koren and Volinsky, ICDM 2008; the CPU solver of `implicit`, float32, 15 sweeps of conjugate gradients.
    Cost: a training each time.

    Args:
        factors: width of the embeddings.
        alpha: weight of an interaction, > 0; 2 was the best of 1, 2, 5, 10, 20 on ML-1M's validation part.
        regularisation: of the factors' squared norms, >= 0.
        sweeps: over users and items, >= 1.
        seed: of the first factors. Every row is solved by one thread alone, so the number of threads has no effect.
        threads: 0 is one a core.
    """

    factors: int = 64
    alpha: float = 2.0
    regularisation: float = 0.01
    sweeps: int = 15
    seed: int = 0
    threads: int = 0

    guarantee = Guarantee.EXACT

    def __post_init__(self) -> None:
        self._prepared: tuple[TrainedState, Tensor] | None = None

    def prepare(self, state: TrainedState) -> None:
        """Fits the base's interactions."""
        self._prepared = (state, self._fit(state.graph))

    def before(self, state: TrainedState) -> Tensor:
        """(n_nodes, factors) float32: the model of all the base's interactions."""
        if self._prepared is None or self._prepared[0] is not state:
            self.prepare(state)
        assert self._prepared is not None
        return self._prepared[1]

    def forget(self, state: TrainedState, request: UnlearningRequest) -> ForgetResult:
        """The model of what remains."""
        started = time.perf_counter()
        remaining = state.graph.without(request.edges)
        readout = self._fit(remaining)
        return ForgetResult(readout, readout, remaining, 0, {"train": time.perf_counter() - started})

    def _fit(self, graph: InteractionGraph) -> Tensor:
        users, items = graph.edges.cpu().numpy()
        ones = np.ones(len(users), np.float32)
        matrix = csr_matrix((ones, (users, items)), shape=(graph.n_users, graph.n_items))
        # Its own threads call BLAS: threads within threads make it many times slower, and it warns of them.
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=self.factors,
                alpha=self.alpha,
                regularization=self.regularisation,
                iterations=self.sweeps,
                random_state=self.seed,
                num_threads=self.threads,
            )
            model.fit(matrix, show_progress=False)
        readout = torch.from_numpy(np.concatenate((model.user_factors, model.item_factors)))
        return zero_isolated(readout.to(graph.device), graph)


def main(choose: bool) -> None:
    """Print qualities on the test part, or with `choose` those of other alphas on the validation part."""
    from benchmarks.learning import graphs

    full, train, held_out, test = graphs()
    state = TrainedState(train, held_out, torch.zeros(train.n_nodes, 1), LightGCN())  # only its interactions count
    validation = InteractionGraph(train.n_users, train.n_items, held_out)
    methods: list[Unlearner] = [Ease(), Als(), Popularity()]
    for method in [Als(alpha=alpha) for alpha in (1.0, 2.0, 5.0, 10.0, 20.0)] if choose else methods:
        started = time.perf_counter()
        readout = method.before(state)
        seconds = time.perf_counter() - started
        quality = ranking_quality(readout, train, validation) if choose else ranking_quality(readout, full, test)
        print(f"{method}: Recall@20 {quality.recall:.4f}, NDCG@20 {quality.ndcg:.4f}, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main("--choose" in sys.argv[1:])
