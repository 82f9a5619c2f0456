"""The influence encoder: from a request to a shift of the layer-0 embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from service.recommender.propagation import product
from service.unlearning.expectation import FORM, Expectation
from service.unlearning.idm import InfluenceDependencyMatrix

EXPECTATION = "expectation"
"""In the facts of an encoder: the form of what it expects of forgotten pairs."""


class OutdatedEncoder(ValueError):
    """An encoder's numbers mean something else in this version of the program."""


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of an influence encoder."""

    layers: int = 3
    """Products with S_D, >= 1."""
    scale: float = 0.1
    """kappa of equation (17): weight of the propagated readout. The paper writes 1, its code has 0.1."""
    init_weight: float = 0.002
    """First value of every W_eta."""
    readout: Literal["sum0_masked", "sum0"] = "sum0_masked"
    """`sum0` is the code of the paper: H_0 shifts also rows that the request does not touch. `sum0_masked` keeps to
    the rows that it touches, so that an empty request changes nothing."""
    slope: float = 0.99
    """Negative slope of the MLP's LeakyReLU: nearly the identity, so that a frozen identity MLP passes all through."""
    correct: bool = False
    """Whether revoked pairs are brought to what they should score after the encoder (`corrector.Corrector`); the
    published method does not."""


class InfluenceEncoder:
    """E0~ = E0 + MLP(Hbar - kappa Ewbar), equations (15)-(18) of UnlearnRec (SIGIR 2025).

    Parameters: `h0` (n_nodes, d) starts at 0; `weight` (n_nodes, 1), W_eta; `mlp`: two square matrices and biases that
    start as the identity, frozen in pre-training and trained in fine-tuning. `expectation` is what the correction
    aims at; None falls back on quantiles.

    Guarantee: approximate.
    Cost: O(layers m d + |V_D| d^2) for a request of m edges that touches the nodes V_D.
    """

    def __init__(
        self,
        config: EncoderConfig,
        h0: Tensor,
        weight: Tensor,
        mlp: tuple[Tensor, ...],
        expectation: Expectation | None = None,
    ) -> None:
        self.config, self.h0, self.weight, self.mlp = config, h0, weight, mlp
        self.expectation = expectation

    @classmethod
    def fresh(cls, config: EncoderConfig, shape: tuple[int, int], device: torch.device) -> InfluenceEncoder:
        """An encoder before pre-training: with `init_weight` 0 it shifts nothing."""
        n_nodes, embedding_size = shape
        identity, zero = torch.eye(embedding_size, device=device), torch.zeros(embedding_size, device=device)
        return cls(
            config,
            torch.zeros(n_nodes, embedding_size, device=device),
            torch.full((n_nodes, 1), config.init_weight, device=device),
            (identity, zero, identity.clone(), zero.clone()),
        )

    @property
    def is_idle(self) -> bool:
        """Whether it shifts nothing, whatever is asked: it has learnt nothing yet."""
        return not (bool(self.h0.any()) or bool(self.weight.any()))

    def hidden(self, idm: InfluenceDependencyMatrix) -> list[Tensor]:
        """H_0..H_L over the touched nodes, each (|V_D|, d): equation (15)."""
        states = [self.h0[idm.nodes]]
        for _ in range(self.config.layers):
            states.append(product(idm.matrix, states[-1]))
        return states

    def influence(self, idm: InfluenceDependencyMatrix, readout: Tensor) -> Tensor:
        """Ewbar over the touched nodes, (|V_D|, d): equation (16), last layer; readout is the base's, (n_nodes, d)."""
        state = readout[idm.nodes] * self.weight[idm.nodes]
        for _ in range(self.config.layers):
            state = product(idm.matrix, state)
        return state

    def transform(self, shift: Tensor) -> Tensor:
        """The MLP of equation (18), any (n, d) -> (n, d)."""
        first, first_bias, second, second_bias = self.mlp
        inner = leaky_relu(shift @ first + first_bias, self.config.slope)
        return leaky_relu(inner @ second + second_bias, self.config.slope)

    def shift(self, idm: InfluenceDependencyMatrix, readout: Tensor, hidden: list[Tensor] | None = None) -> Tensor:
        """The change of layer 0 that a request asks for, equations (17) and (18).

        Args:
            idm: of the request.
            readout: (n_nodes, d) of the base.
            hidden: what `hidden(idm)` gave, where it is at hand already.

        Returns:
            (n_nodes, d), zero outside V_D unless `readout` is `sum0`.
        """
        states = self.hidden(idm) if hidden is None else hidden
        total = states[0]
        for state in states[1:]:
            total = total + state
        local = self.transform(total - self.config.scale * self.influence(idm, readout))  # (|V_D|, d)
        outside = torch.zeros_like(self.h0) if self.config.readout == "sum0_masked" else self.transform(self.h0)
        return outside.index_put((idm.nodes,), local)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of `encoder.safetensors`, on the CPU."""
        named = {"h0": self.h0, "weight": self.weight} | {f"mlp{i}": part for i, part in enumerate(self.mlp)}
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
        return own if self.expectation is None else own | self.expectation.tensors()

    @classmethod
    def from_tensors(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device | None = None
    ) -> InfluenceEncoder:
        """The encoder that `tensors` and `facts` described.

        Raises:
            OutdatedEncoder: another version of this program learnt what a forgotten pair should score.
        """
        options = dict(config)
        form = options.pop(EXPECTATION, None)
        expectation = Expectation.from_tensors(tensors, device)
        if expectation is not None and form != FORM:
            msg = "The influence encoder was made by another version of this program; pre-train it anew."
            raise OutdatedEncoder(msg)
        # Encoders made before the correction was one of pairs named the factor of the one of rows; 1 was none.
        amplification = options.pop("amplification", None)
        if amplification is not None:
            options["correct"] = amplification != 1.0
        mlp = tuple(tensors[f"mlp{i}"].to(device) for i in range(4))
        h0, weight = tensors["h0"].to(device), tensors["weight"].to(device)
        return cls(EncoderConfig(**options), h0, weight, mlp, expectation)

    def facts(self) -> dict[str, Any]:
        """The configuration as plain values, for a manifest."""
        return asdict(self.config) | ({} if self.expectation is None else {EXPECTATION: FORM})

    def copy(self) -> InfluenceEncoder:
        """An encoder with tensors of its own."""
        return InfluenceEncoder(
            self.config,
            self.h0.detach().clone(),
            self.weight.detach().clone(),
            tuple(part.detach().clone() for part in self.mlp),
            self.expectation,
        )
