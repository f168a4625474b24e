"""SDT's network and loss: transformers within and between modalities of a dialogue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skfdan.nn.fdan import FUSED, FDANOutput
from skfdan.nn.inputs import InputNorm, InputSpec
from skfdan.nn.losses import labelled_cross_entropy
from skfdan.nn.lvc import MultiHead

__all__ = ["SDTNet", "SDTOutput", "sdt_loss"]

#: The order in which the modalities stand side by side.
ORDER = ("text", "audio", "visual")


@dataclass
class SDTOutput(FDANOutput):
    """What one forward pass of SDT gives, a row each utterance.

    Parameters
    ----------
    logits : dict of "fused" and of each modality to Tensor of shape (n, n_classes)
        Class scores before the softmax; those of a modality say nothing where
        ``present`` is False.
    layers : dict with the key "fused", list of one Tensor (n, hidden)
        What enters the classifier of all modalities.
    present : dict of modality to Tensor of shape (n,), bool
        Which utterances have the modality.

    Examples
    --------
    >>> net = SDTNet(4, {"text": 5}, hidden=8)
    >>> out = net(text=torch.zeros(3, 5))
    >>> out.logits["fused"].shape, sorted(out.logits), out.present["text"].tolist()
    (torch.Size([3, 4]), ['fused', 'text'], [True, True, True])
    """

    present: dict[str, Tensor] = field(default_factory=dict)


class _Transformer(nn.Module):
    """One layer in which a modality asks (Q), and another or itself is read (K, V)."""

    def __init__(self, width: int, n_heads: int, dropout: float):
        super().__init__()
        self.attention = MultiHead(width, n_heads, dropout=dropout)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.ffn = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(approximate="tanh"),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.Dropout(dropout),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, read: Tensor | None, asking: Tensor, mask: Tensor) -> Tensor:
        """Attend to ``read``; None is ``asking`` itself. ``mask`` (D, L) says which steps are."""
        asking = self.dropout(asking)
        read = asking if read is None else self.dropout(read)
        nothing = ~mask.any(1)
        # With nothing to read all steps are, so that no NaN comes up, and the result is dropped.
        context = self.attention(asking, read, mask | nothing[:, None])
        x = asking + self.dropout(context.masked_fill(nothing[:, None, None], 0.0))
        return x + self.ffn(self.norm(x))


class _UnimodalGate(nn.Module):
    """sigmoid(W x) * x, no bias; W is the identity where it is frozen."""

    def __init__(self, width: int, learned: bool):
        super().__init__()
        self.weight = nn.Linear(width, width, bias=False) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x if self.weight is None else self.weight(x)) * x


def _positions(n: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of the places 0 to n - 1, of shape (n, width)."""
    place = torch.arange(n, device=like.device, dtype=like.dtype)[:, None]
    even = torch.arange(0, width, 2, device=like.device, dtype=like.dtype)
    angle = place * torch.exp(even * -(math.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]


class SDTNet(nn.Module):
    r"""Emotions of the utterances of a dialogue, from up to three modalities.

    Every modality's vectors are projected to ``hidden`` (linear, no bias), and get
    sinusoids of the utterance's place and an embedding of its speaker. One-layer
    transformers read the dialogue: for each modality one in which it reads itself, and for
    each pair (a, b) of different ones one in which b asks (Q) and a is read (K, V).
    Utterances attend to the whole dialogue, later ones too. What
    they give to b goes through gates :math:`\sigma(W x) \odot x` and, side by side, a
    linear layer. The modalities are summed with weights that a softmax over them makes of
    W' x, feature by feature, with W' in common.

    Each modality has a classifier (ReLU, dropout, linear) beside that of all (linear).

    An utterance may lack modalities: its vector is zero and never read, and the sum
    leaves it out. Where all utterances of a dialogue lack a modality, what others would read in
    it is zero. The published system has no such utterances.

    Parameters
    ----------
    n_classes : int
        Number of emotions.
    inputs : mapping of {"text", "audio", "visual"} to InputSpec or int
        The modalities that the network is built for, and their vectors; of those
        that are given by their width alone, nothing is normalised, as published.
    n_speakers : int, default=0
        Number of speakers that have an embedding.
    hidden : int, default=1024
        Width of everything, the feed-forward parts included. Published.
    n_heads : int, default=8
        Attention heads. Published.
    dropout : float, default=0.5
        Dropout of inputs, attention, feed-forward parts and classifiers. Published.
    unimodal_gate : {"learned", "frozen"}, default="learned"
        "frozen" leaves W at the identity, as the released code does for MELD.

    Raises
    ------
    ValueError
        If modalities or ``unimodal_gate`` are unknown, cells are no vectors, or
        ``hidden`` is no multiple of ``n_heads``.

    References
    ----------
    .. [1] H. Ma et al., "A Transformer-Based Model With Self-Distillation for
       Multimodal Emotion Recognition in Conversations", IEEE Transactions on
       Multimedia 2024.

    Examples
    --------
    Two dialogues, of two utterances and of one:

    >>> net = SDTNet(4, {"text": 5, "audio": 6}, n_speakers=2, hidden=16)
    >>> out = net(text=torch.zeros(3, 5), audio=torch.zeros(3, 6),
    ...           lengths=torch.tensor([2, 1]), speaker=torch.tensor([0, 1, -1]))
    >>> out.logits["fused"].shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        n_classes: int,
        inputs: Mapping[str, InputSpec | int],
        n_speakers: int = 0,
        hidden: int = 1024,
        n_heads: int = 8,
        dropout: float = 0.5,
        unimodal_gate: str = "learned",
    ):
        super().__init__()
        if not inputs or set(inputs) - set(ORDER):
            raise ValueError(
                f"inputs has the modalities {list(inputs)}; choose among {list(ORDER)}."
            )
        for m, spec in inputs.items():
            if isinstance(spec, InputSpec) and spec.kind != "vector":
                raise ValueError(
                    f"The {m} cells are of kind {spec.kind}; SDT reads one vector an utterance, "
                    "such as encoders give."
                )
        if hidden % n_heads:
            raise ValueError(
                f"hidden={hidden} can't be divided among n_heads={n_heads}; take a multiple."
            )
        if unimodal_gate not in ("learned", "frozen"):
            raise ValueError(
                f"unimodal_gate={unimodal_gate!r} is unknown; choose one of 'learned', 'frozen'."
            )
        self.modalities = tuple(m for m in ORDER if m in inputs)
        self.hidden = hidden
        self.inputs = nn.ModuleDict(
            {m: InputNorm(s) for m, s in inputs.items() if isinstance(s, InputSpec)}
        )
        widths = {
            m: s.n_features if isinstance(s, InputSpec) else int(s) for m, s in inputs.items()
        }
        # A convolution over time of one step, as published, is a linear map of each.
        self.projections = nn.ModuleDict(
            {m: nn.Linear(widths[m], hidden, bias=False) for m in self.modalities}
        )
        # The last one is that of nobody: zero, and never trained.
        self.speakers = nn.Embedding(n_speakers + 1, hidden, padding_idx=n_speakers)
        pairs = [(a, b) for b in self.modalities for a in self.modalities]
        self.transformers = nn.ModuleDict(
            {f"{a}_{b}": _Transformer(hidden, n_heads, dropout) for a, b in pairs}
        )
        self.gates = nn.ModuleDict(
            {f"{a}_{b}": _UnimodalGate(hidden, unimodal_gate == "learned") for a, b in pairs}
        )
        self.reductions = nn.ModuleDict(
            {m: nn.Linear(len(self.modalities) * hidden, hidden) for m in self.modalities}
        )
        self.last_gate = nn.Linear(hidden, hidden, bias=False)
        self.heads = nn.ModuleDict(
            {
                m: nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, n_classes))
                for m in self.modalities
            }
        )
        self.classifier = nn.Linear(hidden, n_classes)

    def forward(
        self,
        text: Tensor | None = None,
        audio: Tensor | None = None,
        visual: Tensor | None = None,
        lengths: Tensor | None = None,
        speaker: Tensor | None = None,
        index: Mapping[str, Tensor] | None = None,
        ignored: Mapping[str, Tensor] | None = None,
    ) -> SDTOutput:
        """Classify utterances.

        Parameters
        ----------
        text, audio, visual : Tensor of shape (n_m, d_m), or None
            Vectors of each modality.
        lengths : Tensor of shape (n_dialogues,), integer; or None
            How many utterances each dialogue has; they follow each other, in
            their order. Without it, each utterance is a dialogue of its own. Kept in
            the memory of the CPU, nobody waits for another device's answer.
        speaker : Tensor of shape (n,), integer; or None
            Who speaks, from 0; -1 is nobody known. Without it, nobody is.
        index : mapping of modality to Tensor of shape (n,), integer; or None
            The vector of every utterance, -1 where it lacks the modality. Without
            it, vector i belongs to utterance i. Every utterance needs one.
        ignored : mapping of modality to Tensor of shape (n,), bool; or None
            Where an utterance's modality is to be treated as lacking.

        Returns
        -------
        SDTOutput
            Logits and features of the utterances.
        """
        given = {"text": text, "audio": audio, "visual": visual}
        given = {m: given[m] for m in self.modalities if given[m] is not None}
        weight = self.classifier.weight
        vectors, out = {}, SDTOutput()
        for m, x in given.items():
            x = (self.inputs[m](x) if m in self.inputs else x).to(weight.dtype)
            i = torch.arange(len(x), device=x.device) if index is None else index[m]
            out.present[m] = i >= 0
            if ignored:
                out.present[m] = out.present[m] & ~ignored[m]
            vectors[m] = self.projections[m](x)[i].masked_fill(~out.present[m][:, None], 0.0)
        n = len(next(iter(vectors.values())))
        rows, places, shape = _padding(n, lengths, weight.device)

        def padded(x: Tensor) -> Tensor:
            return x.new_zeros(*shape, *x.shape[1:]).index_put((rows, places), x)

        context = _positions(shape[1], self.hidden, weight) + padded(self._spoken_by(speaker, n))
        xs = {m: padded(x) + context for m, x in vectors.items()}
        masks = {m: padded(p) for m, p in out.present.items()}
        reduced = {}
        for b in xs:
            parts = []
            for a in self.modalities:
                if a not in xs:
                    parts.append(torch.zeros_like(xs[b]))
                    continue
                x = self.transformers[f"{a}_{b}"](None if a == b else xs[a], xs[b], masks[a])
                x = self.gates[f"{a}_{b}"](x)
                # Without anyone to read there is nothing to say; nor on a step of padding.
                parts.append(x.masked_fill(~masks[a].any(1)[:, None, None], 0.0))
            reduced[b] = self.reductions[b](torch.cat(parts, -1)[rows, places])
        z = self._fuse(reduced, out.present)
        out.layers[FUSED] = [z]
        out.logits[FUSED] = self.classifier(z)
        out.logits |= {m: self.heads[m](x) for m, x in reduced.items()}
        return out

    def _spoken_by(self, speaker: Tensor | None, n: int) -> Tensor:
        nobody = self.speakers.num_embeddings - 1
        if speaker is None:
            speaker = torch.full((n,), nobody, device=self.speakers.weight.device)
        return self.speakers(speaker.where(speaker >= 0, nobody))

    def _fuse(self, reduced: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        x = torch.stack(list(reduced.values()), 1)
        there = torch.stack([present[m] for m in reduced], 1)[..., None]
        scores = self.last_gate(x).masked_fill(~there, float("-inf"))
        return (scores.softmax(1) * x).sum(1)


def _padding(n: int, lengths: Tensor | None, device) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Return dialogue and place of every utterance, and how many of both there are."""
    lengths = torch.ones(n, dtype=torch.long) if lengths is None else lengths.cpu()
    rows = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    places = torch.arange(n) - (lengths.cumsum(0) - lengths)[rows]
    shape = (len(lengths), int(lengths.max()))
    return rows.to(device), places.to(device), shape


def distillation(
    out: SDTOutput, temperature: float = 1.0, detach_teacher: bool = False
) -> dict[str, Tensor]:
    """KL(p_all || p_m) of each modality, at a temperature, averaged over those who have it."""
    teacher = out.logits[FUSED]
    teacher = (teacher.detach() if detach_teacher else teacher) / temperature
    terms = {}
    for m, there in out.present.items():
        student = (out.logits[m] / temperature).log_softmax(1)
        each = F.kl_div(student, teacher.log_softmax(1), reduction="none", log_target=True).sum(1)
        terms[m] = (each * there).sum() / there.sum().clamp_min(1)
    return terms


def sdt_loss(
    out: SDTOutput,
    y: Tensor,
    unimodal_weight: float = 1.0,
    distillation_weight: float = 1.0,
    temperature: float = 1.0,
    detach_teacher: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Return SDT's loss and its terms.

    .. math::

        L = L_{all} + \gamma_1 \sum_m L_m +
            \gamma_2 \sum_m KL(p_{all}^T \,\|\, p_m^T)

    with cross-entropies :math:`L` and :math:`p^T` the softmax of logits divided by
    the temperature. As in the released code there is no factor :math:`T^2`, and
    the gradient goes into the teacher as well.

    Parameters
    ----------
    out : SDTOutput
        What the network gave.
    y : Tensor of shape (n,), integer
        Classes; -1 is no label.
    unimodal_weight, distillation_weight : float, default=1.0
        γ1 and γ2. Published.
    temperature : float, default=1.0
        T. Published: 1 for IEMOCAP, 8 for MELD.
    detach_teacher : bool, default=False
        Keep the gradient out of the teacher.

    Returns
    -------
    loss : Tensor of shape ()
        The sum.
    terms : dict of "task", "unimodal" and "distillation" to Tensor of shape ()
        The sums over the modalities, without weight and gradient. An utterance
        that lacks a modality is not in its terms.

    Examples
    --------
    >>> net = SDTNet(3, {"text": 6, "audio": 5}, hidden=8)
    >>> out = net(text=torch.randn(4, 6), audio=torch.randn(4, 5))
    >>> loss, terms = sdt_loss(out, torch.tensor([0, 1, 2, 0]), temperature=8.0)
    >>> loss.shape, list(terms)
    (torch.Size([]), ['task', 'unimodal', 'distillation'])
    """
    terms = {
        "task": labelled_cross_entropy(out.logits[FUSED], y),
        "unimodal": sum(
            labelled_cross_entropy(out.logits[m], y.where(there, -1))
            for m, there in out.present.items()
        ),
        "distillation": sum(distillation(out, temperature, detach_teacher).values()),
    }
    loss = (
        terms["task"]
        + unimodal_weight * terms["unimodal"]
        + distillation_weight * terms["distillation"]
    )
    return loss, {name: term.detach() for name, term in terms.items()}
