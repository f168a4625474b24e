"""FDRL's network and losses: shared and private representations of two modalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skfdan.nn.adversarial import a_distance, dynamic_factor, grad_reverse
from skfdan.nn.fdan import FUSED, FDANOutput
from skfdan.nn.inputs import InputNorm, InputSpec, Padded
from skfdan.nn.losses import labelled_cross_entropy
from skfdan.nn.pretrained_layers import LastLayers, LayerShape
from skfdan.nn.wavfusion import pool

__all__ = ["FDRL_ABLATIONS", "FDRLLoss", "FDRLNet", "FDRLOutput", "paper_factor"]

#: The terms of the loss beside L_task: L_g, L_l, L_p, L_d and L_f.
TERMS = ("global", "local", "private", "difference", "predictor")

#: What the settings of the paper's ablation leave out.
FDRL_ABLATIONS = {
    "S1": ("global", "local", "private", "difference"),
    "S2": ("global",),
    "S3": ("local",),
    "S4": ("global", "local"),
    "S5": ("private", "difference"),
    "S6": ("predictor",),
}


@dataclass
class FDRLOutput(FDANOutput):
    """What one forward pass of FDRL gives.

    Parameters
    ----------
    logits : dict with the key "fused", Tensor of shape (n, n_classes)
        Class scores of the joint rows, before the softmax.
    layers : dict with the key "fused", list of one Tensor (n, 4 x hidden)
        What enters the classifier.
    shared, private : dict of modality to Tensor of shape (n_m, hidden)
        The representations S and P of the samples.
    predicted : dict of str to Tensor
        What the predictor makes of S_a + S_t (key "shared", (n, n_classes)), of
        each P (the modality, (n_m, n_classes)), and of each S alone
        ("shared.<modality>"), which weighs the discriminators of the classes.
    index : dict of modality to Tensor of shape (n,), integer
        The sample of every joint row; -1 where a row lacks the modality.

    Examples
    --------
    >>> net = FDRLNet(4, {"audio": InputSpec("vector", n_features=5)}, hidden=8)
    >>> out = net(audio=torch.zeros(3, 5))
    >>> out.logits["fused"].shape, sorted(out.predicted)
    (torch.Size([3, 4]), ['audio', 'shared', 'shared.audio'])
    """

    shared: dict[str, Tensor] = field(default_factory=dict)
    private: dict[str, Tensor] = field(default_factory=dict)
    predicted: dict[str, Tensor] = field(default_factory=dict)
    index: dict[str, Tensor] = field(default_factory=dict)


class FDRLNet(nn.Module):
    """Shared and private representations of two modalities, and their fusion.

    Every modality is projected to ``hidden`` features, where one shared encoder and
    a private one for each (two linear layers, ReLU between them) make S and P. The predictor
    is one linear layer. The four representations are the tokens of a multi-head
    self-attention, whose outputs side by side enter the classifier.

    A row may lack a modality: its tokens are masked in the attention and zero in
    what the classifier reads.

    Parameters
    ----------
    n_classes : int
        Number of emotions.
    inputs : mapping of modality to InputSpec
        The modalities that the network is built for; their cells are vectors, or
        sequences where there are ``encoders``.
    hidden : int, default=256
        Width of all representations. The paper has encoders of equal width, and
        no projection before the shared one.
    n_heads : int, default=4
        Attention heads.
    dropout : float, default=0.1
        Dropout before the classifier, and of the encoders' layers.
    encoders : mapping of modality to LayerShape, or None, default=None
        Modalities whose cells are hidden states of an encoder, of which the last layers
        are part of the network; the mean over time of what they give is read.
    n_layers : int, default=0
        How many layers of each of these encoders.

    Raises
    ------
    ValueError
        If ``hidden`` is no multiple of ``n_heads``, or cells are of the wrong kind.

    References
    ----------
    .. [1] H. Sun et al., "Fine-Grained Disentangled Representation Learning for
       Multimodal Emotion Recognition", ICASSP 2024.

    Examples
    --------
    >>> net = FDRLNet(4, {"audio": InputSpec("vector", n_features=7),
    ...                   "text": InputSpec("vector", n_features=5)}, hidden=16)
    >>> out = net(audio=torch.zeros(2, 7), text=torch.zeros(3, 5),
    ...           index={"audio": torch.tensor([0, -1, 1]), "text": torch.arange(3)})
    >>> out.logits["fused"].shape, out.private["audio"].shape
    (torch.Size([3, 4]), torch.Size([2, 16]))
    """

    def __init__(
        self,
        n_classes: int,
        inputs: Mapping[str, InputSpec],
        hidden: int = 256,
        n_heads: int = 4,
        dropout: float = 0.1,
        encoders: Mapping[str, LayerShape] | None = None,
        n_layers: int = 0,
    ):
        super().__init__()
        if hidden % n_heads:
            raise ValueError(
                f"hidden={hidden} can't be divided among n_heads={n_heads}; take a multiple."
            )
        encoders = encoders or {}
        for m, spec in inputs.items():
            kind = "sequence" if m in encoders else "vector"
            if spec.kind != kind:
                raise ValueError(
                    f"The {m} cells are {spec.kind}s; FDRL reads {kind}s, such as encoders give."
                )
        self.modalities = tuple(inputs)
        self.hidden = hidden
        self.inputs = nn.ModuleDict({m: InputNorm(s) for m, s in inputs.items()})
        self.encoders = nn.ModuleDict(
            {m: LastLayers(shape, n_layers, dropout) for m, shape in encoders.items()}
        )
        self.projections = nn.ModuleDict(
            {m: nn.Linear(s.n_features, hidden) for m, s in inputs.items()}
        )
        self.shared = _encoder(hidden)
        self.private = nn.ModuleDict({m: _encoder(hidden) for m in inputs})
        self.predictor = nn.Linear(hidden, n_classes)
        self.attention = nn.MultiheadAttention(hidden, n_heads, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * len(self.modalities) * hidden, n_classes)

    def forward(
        self,
        visual: Tensor | None = None,
        audio: Tensor | None = None,
        text: Tensor | None = None,
        index: Mapping[str, Tensor] | None = None,
        ignored: Mapping[str, Tensor] | None = None,
    ) -> FDRLOutput:
        """Classify joint rows.

        Parameters
        ----------
        visual, audio, text : Tensor of shape (n_m, d_m), Padded, or None
            Cells of each modality: vectors, or sequences where it has an encoder.
        index : mapping of modality to Tensor of shape (n,), integer; or None
            The sample of every joint row, -1 where a row lacks the modality.
            Without it, sample i belongs to row i. Every row needs one.
        ignored : mapping of modality to Tensor of shape (n,), bool; or None
            Where the fusion is to treat a row's modality as lacking.

        Returns
        -------
        FDRLOutput
            Logits and features of the rows, representations of the samples.
        """
        given = {"visual": visual, "audio": audio, "text": text}
        out = FDRLOutput()
        for m in self.modalities:
            if given[m] is None:
                continue
            z = self.projections[m](self._vectors(m, given[m]))
            out.shared[m], out.private[m] = self.shared(z), self.private[m](z)
            out.predicted[m] = self.predictor(out.private[m])
            out.predicted[f"shared.{m}"] = self.predictor(out.shared[m])
            out.index[m] = torch.arange(len(z), device=z.device) if index is None else index[m]
        out.predicted["shared"] = self.predictor(
            sum(_rows(s, out.index[m]) for m, s in out.shared.items())
        )
        features = self._fuse(out, ignored)
        out.layers[FUSED] = [features]
        out.logits[FUSED] = self.classifier(self.dropout(features))
        return out

    def _vectors(self, m: str, x: Tensor | Padded) -> Tensor:
        """Return the normalised cells; of sequences, what their encoder makes of them."""
        dtype = self.classifier.weight.dtype
        if m not in self.encoders:
            return self.inputs[m](x).to(dtype)
        mask = x.mask()
        return pool(self.encoders[m](self.inputs[m](x.values).to(dtype), mask), mask)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return what comes from the encoders and is trained.

        Returns
        -------
        list of Parameter
            Those of the encoders' last layers.
        """
        return [p for p in self.encoders.parameters() if p.requires_grad]

    def _fuse(self, out: FDRLOutput, ignored: Mapping[str, Tensor] | None) -> Tensor:
        """F = [S_a, S_t, P_a, P_t] through self-attention, side by side."""
        n = len(next(iter(out.index.values())))
        tokens, lacking = [], []
        for representations in (out.shared, out.private):
            for m in self.modalities:
                if m in out.index:
                    tokens.append(_rows(representations[m], out.index[m]))
                    absent = out.index[m] < 0
                    lacking.append(absent if not ignored else absent | ignored[m])
                else:
                    weight = self.classifier.weight
                    tokens.append(weight.new_zeros(n, self.hidden))
                    lacking.append(weight.new_ones(n, dtype=torch.bool))
        x, mask = torch.stack(tokens, 1), torch.stack(lacking, 1)
        fused, _ = self.attention(x, x, x, key_padding_mask=mask, need_weights=False)
        return fused.masked_fill(mask[..., None], 0.0).flatten(1)


def _encoder(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


def _rows(samples: Tensor, index: Tensor) -> Tensor:
    """Return the sample of every row; zeros where it has none."""
    return F.pad(samples, (0, 0, 0, 1))[index]


def _discriminator(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


def paper_factor(global_loss: Tensor, local_loss: Tensor) -> Tensor:
    r"""Return FDRL's dynamic factor as eq. 6 and 7 write it, from losses.

    :math:`\mu = d_g / (d_g + d_l)` with :math:`d = 2 (1 - 2 L)`. An A-distance takes
    an error rate, which is at most 1; a loss is not, and μ leaves [0, 1] where the two
    distances differ in sign. Where their sum is 0, it is 1/2.

    Parameters
    ----------
    global_loss : Tensor of shape ()
        L_g.
    local_loss : Tensor of shape ()
        Mean over the classes of L_l.

    Returns
    -------
    Tensor of shape ()
        μ, without gradient.

    Examples
    --------
    >>> round(paper_factor(torch.tensor(0.3), torch.tensor(1.0)).item(), 2)
    -0.67
    >>> paper_factor(torch.tensor(0.2), torch.tensor(0.2)).item()
    0.5
    """
    d_global, d_local = (2.0 * (1.0 - 2.0 * loss.detach()) for loss in (global_loss, local_loss))
    total = d_global + d_local
    return torch.where(total == 0, torch.full_like(total, 0.5), d_global / total)


class FDRLLoss(nn.Module):
    r"""FDRL's losses beside that of the task, with their discriminators.

    .. math::

        \alpha [(1 - \mu) L_g + \mu L_l] + \beta (L_p + L_d) + \gamma L_f

    - L_g: cross-entropy of a discriminator that tells the modality from S,
      behind a gradient reversal; summed over the modalities (eq. 4).
    - L_l: the same with one discriminator a class, weighed by the predicted
      probability of the class (eq. 5), averaged over the classes, so that it
      compares with L_g.
    - L_p: cross-entropy of a discriminator that tells the modality from P, no
      reversal; averaged over the modalities.
    - L_d: what S and P of a modality have in common.
    - L_f: cross-entropy of the predictor on S_a + S_t, P_a and P_t, averaged.

    Parameters
    ----------
    n_features : int
        Width of the representations.
    n_classes : int
        Number of classes, C.
    mu : {"error-rate", "paper"} or float, default="error-rate"
        The dynamic factor: from the error rates of the last epoch (1/2 in the
        first), as :func:`paper_factor` of each batch, or a constant.
    mu_rule : {"paper", "reversed"}, default="paper"
        "reversed" gives μ to L_g and 1 - μ to L_l, as DAAN's released code does.
    local_weighting : {"input", "output"}, default="input"
        Where the probability of a class enters its discriminator: DAAN's or eq. 5.
    orthogonality : {"normalized", "paper"}, default="normalized"
        :math:`\|S^T P\|_F^2`, of centred rows of unit length and divided by the
        square of the width, or as it is.
    ablation : str or None, default=None
        A key of ``FDRL_ABLATIONS``.

    Attributes
    ----------
    mu_ : Tensor of shape ()
        μ of the last batch.

    Notes
    -----
    The probabilities are detached: through them a gradient that is not reversed
    would teach the predictor to give the modality away. L_g, L_l and L_p need
    samples of two modalities, and are 0 for a batch that has those of one.

    References
    ----------
    .. [1] H. Sun et al., "Fine-Grained Disentangled Representation Learning for
       Multimodal Emotion Recognition", ICASSP 2024.

    Examples
    --------
    >>> specs = {m: InputSpec("vector", n_features=5) for m in ("audio", "text")}
    >>> net, loss = FDRLNet(3, specs, hidden=8), FDRLLoss(8, n_classes=3, ablation="S2")
    >>> out = net(audio=torch.randn(4, 5), text=torch.randn(4, 5))
    >>> value, terms = loss(out, torch.tensor([0, 1, 2, 0]))
    >>> value.shape, sorted(terms)
    (torch.Size([]), ['difference', 'local', 'predictor', 'private'])
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        mu: str | float = "error-rate",
        mu_rule: str = "paper",
        local_weighting: str = "input",
        orthogonality: str = "normalized",
        ablation: str | None = None,
    ):
        super().__init__()
        self.n_classes = n_classes
        self.mu = mu
        self.mu_rule = mu_rule
        self.local_weighting = local_weighting
        self.orthogonality = orthogonality
        self.terms = tuple(t for t in TERMS if t not in FDRL_ABLATIONS.get(ablation, ()))
        counts = {"global": 1, "local": n_classes, "private": 1}
        self.discriminators = nn.ModuleDict(
            {
                name: nn.ModuleList(_discriminator(n_features) for _ in range(n))
                for name, n in counts.items()
                if name in self.terms
            }
        )
        self.register_buffer("mu_", torch.tensor(0.5 if isinstance(mu, str) else float(mu)))
        # Wrong and all decisions on each modality: of G_d, then of those of the classes.
        self.register_buffer("_wrong", torch.zeros(2, 1 + n_classes))
        self.register_buffer("_seen", torch.zeros(2, 1 + n_classes))

    def forward(
        self,
        out: FDRLOutput,
        y: Tensor,
        alpha: float = 1.0,
        beta: float = 0.5,
        gamma: float = 1.0,
        coefficient: float = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted losses, and each term without its weight.

        Parameters
        ----------
        out : FDRLOutput
            What the network gave.
        y : Tensor of shape (n,), integer
            Class of every joint row.
        alpha, beta, gamma : float
            Weights of alignment, disparity and predictor.
        coefficient : float, default=1.0
            Coefficient of the gradient reversal.

        Returns
        -------
        loss : Tensor of shape ()
            The sum.
        terms : dict of str to Tensor of shape ()
            The terms that are not left out, and ``mu`` where there is one.
        """
        terms: dict[str, Tensor] = {}
        zero = 0.0 * out.logits[FUSED].sum()
        paired = len(out.shared) == 2
        if "global" in self.terms:
            terms["global"] = self._modality_loss("global", out, coefficient) if paired else zero
        if "local" in self.terms:
            terms["local"] = self._modality_loss("local", out, coefficient) if paired else zero
        loss = alpha * self._aligned(terms, zero)
        if "private" in self.terms:
            terms["private"] = self._modality_loss("private", out) / 2 if paired else zero
            loss = loss + beta * terms["private"]
        if "difference" in self.terms:
            terms["difference"] = sum(
                self._difference(out.shared[m], out.private[m]) for m in out.shared
            )
            loss = loss + beta * terms["difference"]
        if "predictor" in self.terms:
            rows = [(out.predicted["shared"], y)]
            # A row that lacks the modality is as one without a label.
            rows += [
                (_rows(out.predicted[m], i), torch.where(i < 0, -1, y))
                for m, i in out.index.items()
            ]
            losses = [labelled_cross_entropy(p, labels) for p, labels in rows]
            terms["predictor"] = sum(losses) / len(losses)
            loss = loss + gamma * terms["predictor"]
        if "global" in self.terms and "local" in self.terms:
            terms["mu"] = self.mu_.clone()
        return loss, terms

    def _aligned(self, terms: dict[str, Tensor], zero: Tensor) -> Tensor:
        """Return (1 - μ) L_g + μ L_l, or the one that there is."""
        if "global" not in terms or "local" not in terms:
            return terms.get("global", terms.get("local", zero))
        if self.mu == "paper" and self.training:
            self.mu_.copy_(paper_factor(terms["global"], terms["local"]))
        share = self.mu_.clone() if self.mu_rule == "paper" else 1.0 - self.mu_
        return (1.0 - share) * terms["global"] + share * terms["local"]

    def _modality_loss(self, kind: str, out: FDRLOutput, coefficient: float = 1.0) -> Tensor:
        """Return the cross-entropy of telling the modality, summed over both."""
        total = 0.0
        for domain, m in enumerate(out.shared):
            z = out.private[m] if kind == "private" else grad_reverse(out.shared[m], coefficient)
            weights = torch.ones_like(z[:, :1])
            if kind == "local":
                weights = out.predicted[f"shared.{m}"].detach().softmax(1).to(z.dtype)
            target = torch.full((len(z),), domain, device=z.device)
            for c, discriminator in enumerate(self.discriminators[kind]):
                w = weights[:, c : c + 1]
                if kind == "local" and self.local_weighting == "output":
                    logits = w * discriminator(z)
                else:
                    logits = discriminator(w * z)
                total = total + F.cross_entropy(logits, target) / weights.shape[1]
                if self.training and kind != "private":
                    with torch.no_grad():
                        wrong = (logits.argmax(1) != domain) * w[:, 0]
                        place = c + (kind == "local")
                        self._wrong[domain, place] += wrong.sum()
                        self._seen[domain, place] += w.sum()
        return total

    def _difference(self, shared: Tensor, private: Tensor) -> Tensor:
        if self.orthogonality == "normalized":
            # Unlike in MISA's, gradients flow through the lengths: without that they always
            # shorten the rows, which lowers nothing, until S and P are constant.
            a, b = (F.normalize(z - z.mean(0), dim=1, eps=1e-6) for z in (shared, private))
            return (a.T @ b).square().mean()
        return (shared.T @ private).square().sum()

    def end_epoch(self) -> None:
        """Set μ from the error rates since the last call, if it follows them."""
        if self.mu == "error-rate" and bool(self._seen[:, 0].all()):
            rates = torch.where(self._seen > 0, self._wrong / self._seen, 0.5)
            distances = a_distance(rates.mean(0))
            self.mu_.copy_(dynamic_factor(distances[0], distances[1:].mean()))
        self._wrong.zero_()
        self._seen.zero_()
