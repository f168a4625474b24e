"""WavFusion within wav2vec 2.0: gated attention in the last transformer layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skfdan.nn.gated import GatedCrossModalAttention
from skfdan.nn.wavfusion import (
    ORDER,
    AuxiliaryEncoders,
    WavFusionOutput,
    pool,
    sequences,
)

__all__ = ["WavFusionWav2Vec2", "insert_gated_layers"]


class _Inserted(nn.Module):
    """Gated attention that is called as wav2vec 2.0's self-attention is.

    wav2vec 2.0 hands its layers nothing but audio, so what they read is
    placed in ``context`` and ``masks`` while it runs.
    """

    def __init__(self, original: nn.Module, context: Mapping[str, int]):
        super().__init__()
        self.embed_dim = original.embed_dim
        self.gated = GatedCrossModalAttention(
            original.embed_dim, original.num_heads, context, original.dropout
        )
        weights = {
            k: v for k, v in original.state_dict().items() if k.split(".")[0].endswith("_proj")
        }
        for attention in (self.gated.self_attention, *self.gated.cross.values()):
            shapes = {k: v.shape for k, v in attention.state_dict().items()}
            fitting = _whole_layers({k: v for k, v in weights.items() if v.shape == shapes[k]})
            attention.load_state_dict(fitting, strict=False)
        reference = next(iter(weights.values()))
        self.to(reference.device, reference.dtype)
        self.context: Mapping[str, Tensor] = {}
        self.masks: Mapping[str, Tensor] = {}

    def forward(self, x: Tensor, attention_mask: Tensor | None = None, **kwargs):
        mask = None
        if attention_mask is not None:
            # (n, 1, T, T) with a row for each query: True, or 0 instead of a
            # large negative number, for the keys that are read.
            keys = attention_mask[:, 0, 0]
            mask = keys if keys.dtype == torch.bool else keys > -1.0
        out = self.gated(x, self.context, self.masks, mask)
        # Older versions of transformers take three values apart.
        return (out, None, None) if "output_attentions" in kwargs else (out, None)


def _whole_layers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the bias where the weight does not fit: they belong together."""
    return {k: v for k, v in weights.items() if f"{k.rsplit('.', 1)[0]}.weight" in weights}


def _layers(model: nn.Module) -> nn.ModuleList:
    encoder = getattr(model, "encoder", None)
    layers = getattr(getattr(encoder, "transformer", encoder), "layers", None)
    if layers is None or not hasattr(layers[-1], "attention"):
        raise ValueError(
            f"{type(model).__name__} has no wav2vec 2.0 layers; give a Wav2Vec2Model of "
            "torchaudio or transformers."
        )
    return layers


def insert_gated_layers(
    model: nn.Module, context: Mapping[str, int], n_deep: int = 3
) -> list[nn.Module]:
    """Give the last layers of a wav2vec 2.0 gated attention, and freeze the others.

    In the last ``n_deep`` transformer layers :class:`GatedCrossModalAttention` takes
    the place of self-attention. Residuals, layer norms (before or after, as the
    model has them) and feed-forward parts stay. Queries, outputs, and keys and
    values if their width fits, start from the weights of the self-attention.

    Parameters
    ----------
    model : torchaudio.models.Wav2Vec2Model or transformers.Wav2Vec2Model
        Changed in place. Only the layers with gated attention keep their
        gradients.
    context : mapping of str to int
        At most two modalities and the widths of what is read.
    n_deep : int, default=3
        Number of layers with gated attention. Published, of 12.

    Returns
    -------
    list of Module
        The inserted modules. Before the model runs, set their ``context`` and
        ``masks`` as :class:`GatedCrossModalAttention` takes them; without, each is
        the self-attention that it replaced.

    Raises
    ------
    ValueError
        If the model is of another kind, or has fewer layers.

    Examples
    --------
    >>> from torchaudio.models import wav2vec2_model
    >>> model = wav2vec2_model("group_norm", [(8, 10, 5), (8, 8, 4)], False, 16, 0.0, 8, 2,
    ...                        4, 2, 0.0, 32, 0.0, 0.0, False, 0.0, None)
    >>> len(insert_gated_layers(model, {"text": 5}, n_deep=1))
    1
    >>> sum(p.requires_grad for p in model.encoder.transformer.layers[2].parameters())
    0
    """
    layers = _layers(model)
    if not 0 <= n_deep <= len(layers):
        raise ValueError(f"n_deep={n_deep}, but the model has {len(layers)} layers.")
    model.requires_grad_(False)
    inserted = []
    for layer in layers[len(layers) - n_deep :]:
        layer.attention = _Inserted(layer.attention, context)
        layer.requires_grad_(True)
        inserted.append(layer.attention)
    return inserted


class WavFusionWav2Vec2(nn.Module):
    """WavFusion from waveforms: wav2vec 2.0 whose last layers read text and faces.

    Parameters
    ----------
    n_classes : int
        Number of emotions.
    model : torchaudio.models.Wav2Vec2Model or transformers.Wav2Vec2Model
        Changed by :func:`insert_gated_layers`; published is the base model.
    n_features : mapping of {"text", "visual"} to int
        Widths of the other modalities' frames; published are 768 (RoBERTa) and
        64 (EfficientNet). May be empty.
    n_deep : int, default=3
        Number of layers with gated attention. Published. 0 leaves wav2vec 2.0 as it
        is, frozen, and classifies the means of all modalities side by side.
    hidden, n_heads, common_dim, n_codes, lvc, dropout
        See :class:`WavFusionNet`; ``n_heads`` is of text and faces alone.

    Raises
    ------
    ValueError
        See :func:`insert_gated_layers`; or if modalities are unknown.

    Notes
    -----
    What is frozen also stays in evaluation mode, so that neither dropout nor
    LayerDrop disturbs it; the layers with gated attention are never dropped.
    Waveforms are taken as the model's checkpoint expects them.

    References
    ----------
    .. [1] F. Li, J. Luo, W. Xia, "WavFusion: Towards wav2vec 2.0 Multimodal
       Speech Emotion Recognition", MMM 2025.

    Examples
    --------
    >>> from torchaudio.models import wav2vec2_model
    >>> model = wav2vec2_model("group_norm", [(8, 10, 5), (8, 8, 4)], False, 16, 0.0, 8, 2,
    ...                        4, 2, 0.0, 32, 0.0, 0.0, False, 0.0, None)
    >>> net = WavFusionWav2Vec2(4, model, {"text": 5}, hidden=8)
    >>> net(torch.randn(2, 800), text=torch.randn(2, 3, 5)).logits["fused"].shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        n_classes: int,
        model: nn.Module,
        n_features: Mapping[str, int],
        n_deep: int = 3,
        hidden: int = 128,
        n_heads: int = 4,
        common_dim: int = 128,
        n_codes: int = 64,
        lvc: bool = True,
        dropout: float = 0.1,
    ):
        super().__init__()
        if set(n_features) - set(ORDER[1:]):
            raise ValueError(
                f"n_features has the modalities {list(n_features)}; choose among "
                f"{list(ORDER[1:])}: audio is the model's."
            )
        width = _layers(model)[-1].attention.embed_dim
        self.rest = AuxiliaryEncoders(
            n_classes,
            n_features,
            width,
            hidden,
            n_heads,
            common_dim,
            n_codes,
            lvc,
            n_deep == 0,
            dropout,
        )
        self.n_deep = n_deep
        self.wav2vec2 = model
        insert_gated_layers(model, self.rest.context, n_deep)
        self.train(self.training)

    def train(self, mode: bool = True) -> WavFusionWav2Vec2:
        """Set training mode, of the trained parts alone.

        Parameters
        ----------
        mode : bool, default=True
            False is evaluation mode.

        Returns
        -------
        WavFusionWav2Vec2
            Itself.
        """
        super().train(mode)
        self.wav2vec2.eval()
        for layer in self._deep():
            layer.train(mode)
        return self

    def _deep(self) -> list[nn.Module]:
        layers = _layers(self.wav2vec2)
        return list(layers)[len(layers) - self.n_deep :]

    def audio(
        self, waveforms: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run wav2vec 2.0, whose inserted layers read what their ``context`` holds.

        Parameters
        ----------
        waveforms : Tensor of shape (n, samples)
            Sound, padding last.
        lengths : Tensor of shape (n,), integer; or None
            Samples of each row; None is all. Models whose feature extractor has a group
            norm (those of the size "base") normalise over the padding too, whatever the
            lengths are, and what a row gives depends on how much of it there is: give
            them rows of equal length, together or one by one.

        Returns
        -------
        shallow, deep : Tensor of shape (n, T, width)
            Frames before the first layer with gated attention, and the output.
        mask : Tensor of shape (n, T), bool
            True for frames, False for padding.
        """
        kept = []
        deep = self._deep()
        hook = None
        if deep:
            hook = deep[0].register_forward_pre_hook(lambda _, args: kept.append(args[0]))
        try:
            x, n_frames = self._run(waveforms, lengths)
        finally:
            if hook is not None:
                hook.remove()
        if n_frames is None:
            n_frames = torch.full((len(x),), x.shape[1], device=x.device)
        mask = torch.arange(x.shape[1], device=x.device) < n_frames[:, None]
        return kept[0] if kept else x, x, mask

    def _run(self, waveforms: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        model = self.wav2vec2
        if hasattr(model.encoder, "transformer"):
            # Without torchaudio's last step, a head for transcripts if there is one.
            features, n_frames = model.feature_extractor(waveforms, lengths)
            return model.encoder(features, n_frames), n_frames
        if lengths is None:
            return model(waveforms).last_hidden_state, None
        samples = torch.arange(waveforms.shape[1], device=waveforms.device)
        x = model(waveforms, attention_mask=(samples < lengths[:, None]).long())
        return x.last_hidden_state, model._get_feat_extract_output_lengths(lengths)

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        text: Tensor | None = None,
        visual: Tensor | None = None,
        masks: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> WavFusionOutput:
        """Classify rows.

        Parameters
        ----------
        waveforms, lengths
            See :meth:`audio`. Every row has sound.
        text, visual : Tensor of shape (n, T_m, d_m) or (n, d_m), or None
            Frames of the others, padding last, or one vector.
        masks, present
            See :meth:`WavFusionNet.forward`.

        Returns
        -------
        WavFusionOutput
            Logits, features and what the margin loss compares.
        """
        given = {"text": text, "visual": visual}
        given = {m: given[m] for m in self.rest.encoders}
        xs, masks = sequences(given, masks, present, self.rest.classifier.weight.dtype)
        there = {m: mask.any(1) for m, mask in masks.items()}
        encoded = self.rest.encode(xs, masks)
        inserted = [layer.attention for layer in self._deep()]
        for attention in inserted:
            attention.context, attention.masks = encoded, masks
        try:
            shallow, deep, mask = self.audio(waveforms, lengths)
        finally:
            for attention in inserted:
                attention.context, attention.masks = {}, {}
        there = {"audio": mask.any(1)} | there
        before = {"audio": pool(shallow, mask)}
        before |= {m: pool(x, masks[m]) for m, x in encoded.items()}
        return self.rest.classify(pool(deep, mask), before, there)
