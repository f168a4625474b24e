"""Three networks over hand-made speech features, and the weighted average of their votes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from skfdan.nn.fdan import FDANOutput

__all__ = ["TFMixNet", "TFMixOutput"]

_KERNEL = 5


@dataclass
class TFMixOutput(FDANOutput):
    """What one forward pass of :class:`TFMixNet` gives.

    Parameters
    ----------
    logits : dict with the key "audio", Tensor of shape (n, n_classes)
        Logarithm of the members' weighted average probability.
    layers : dict with the key "audio", list of one Tensor of shape (n, 3 * fc_width)
        What enters the members' last layers, side by side.
    members : dict of member to Tensor of shape (n, n_classes)
        Each member's class scores before the softmax.

    Examples
    --------
    >>> import torch
    >>> TFMixOutput(logits={"audio": torch.zeros(5, 3)}, members={}).logits["audio"].shape
    torch.Size([5, 3])
    """

    members: dict[str, Tensor] = field(default_factory=dict)


class _Convolutions(nn.Sequential):
    """Blocks of a convolution over time, each of which halves the number of frames."""

    def __init__(self, n_features: int, channels: int, n_blocks: int, dropout: float):
        blocks = []
        for i in range(n_blocks):
            blocks += [
                nn.Conv1d(channels if i else n_features, channels, _KERNEL, padding=_KERNEL // 2),
                # One group: no statistics of a batch, and any number of channels.
                nn.GroupNorm(1, channels),
                nn.ReLU(),
                nn.MaxPool1d(2, ceil_mode=True),  # one frame stays one frame
                nn.Dropout(dropout),
            ]
        super().__init__(*blocks)


class _Member(nn.Module):
    """Convolutions, perhaps a BiLSTM and Transformer layers, a mean over time, and the FCN."""

    def __init__(
        self,
        n_classes: int,
        convolutions: _Convolutions,
        channels: int,
        lstm_hidden: int | None,
        n_layers: int,
        n_heads: int,
        fc_width: int,
        dropout: float,
    ):
        super().__init__()
        self.convolutions = convolutions
        self.lstm = None
        size = channels
        if lstm_hidden is not None:
            self.lstm = nn.LSTM(channels, lstm_hidden, batch_first=True, bidirectional=True)
            size = 2 * lstm_hidden
        self.transformer = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    size, n_heads, 2 * size, dropout, batch_first=True, norm_first=True
                )
                for _ in range(n_layers)
            )
        )
        self.hidden = nn.Sequential(nn.Linear(size, fc_width), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(fc_width, n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (n, fc_width) and logits of sequences (n, n_features, T)."""
        x = self.convolutions(x).transpose(1, 2)
        if self.lstm is not None:
            x, _ = self.lstm(x)
        features = self.hidden(self.transformer(x).mean(1))
        return features, self.classifier(features)


class TFMixNet(nn.Module):
    r"""Three networks beside each other, as in TF-Mix [1]_: style, not replica.

    What is public of the paper names the networks and the average:

    - ``cnn``: a 1-D CNN, then a fully connected network (FCN);
    - ``bilstm``: a CNN, a bidirectional LSTM, an FCN;
    - ``transformer``: a CNN, a bidirectional LSTM, a Transformer, an FCN;
    - their ensemble, a weighted average. Here it is that of the members'
      probabilities, :math:`p = \sum_k w_k \, \mathrm{softmax}(f_k(x))`.

    Everything else was decided here. A block of a CNN is a convolution over time
    (kernel 5), group normalisation, ReLU, maximum over pairs of frames, dropout;
    there are four in the first network and two before an LSTM. The LSTM gives
    the order of frames to the Transformer, which therefore has no position
    code; its layers normalise first, and are twice as wide within. Outputs are
    averaged over time. The FCN is one hidden layer with ReLU and dropout, and the
    classifying layer. The members share nothing but their input, whose rows are
    standardised with the statistics given to :meth:`standardise`.

    Parameters
    ----------
    n_classes : int
        Number of emotions.
    n_features : int
        Features a frame.
    channels : int, default=96
        Filters of every convolution.
    lstm_hidden : int, default=64
        Units of each direction of an LSTM.
    n_layers : int, default=1
        Layers of the Transformer.
    n_heads : int, default=4
        Attention heads; they divide ``2 * lstm_hidden``.
    fc_width : int, default=64
        Width of the hidden layer of an FCN.
    dropout : float, default=0.3
        Dropout in the CNNs, the Transformer and the FCNs.

    Attributes
    ----------
    member_weights : Tensor of shape (3,), float64
        Weights of the members in the average, in the order of ``members``; 1/3
        each until they are changed.

    Raises
    ------
    ValueError
        If n_heads does not divide ``2 * lstm_hidden``, and there are layers that attend.

    References
    ----------
    .. [1] M. Wang, H. Ma, Y. Wang, X. Sun (2024). Design of smart home system
       speech emotion recognition model based on ensemble deep learning and
       feature fusion. Applied Acoustics 218, 109886.

    Examples
    --------
    >>> net = TFMixNet(7, n_features=98)
    >>> out = net(audio=torch.zeros(2, 1, 98, 173))
    >>> out.logits["audio"].shape, list(out.members)
    (torch.Size([2, 7]), ['cnn', 'bilstm', 'transformer'])
    >>> sum(p.numel() for p in net.parameters())
    696277
    """

    def __init__(
        self,
        n_classes: int,
        n_features: int,
        channels: int = 96,
        lstm_hidden: int = 64,
        n_layers: int = 1,
        n_heads: int = 4,
        fc_width: int = 64,
        dropout: float = 0.3,
    ):
        super().__init__()
        width = 2 * lstm_hidden
        if n_layers and width % n_heads:
            raise ValueError(f"n_heads={n_heads} does not divide 2 * lstm_hidden={width}.")
        # Blocks of the CNN, units of the LSTM, layers of the Transformer.
        shapes = {
            "cnn": (4, None, 0),
            "bilstm": (2, lstm_hidden, 0),
            "transformer": (2, lstm_hidden, n_layers),
        }
        self.members = nn.ModuleDict(
            {
                name: _Member(
                    n_classes,
                    _Convolutions(n_features, channels, n_blocks, dropout),
                    channels,
                    hidden,
                    layers,
                    n_heads,
                    fc_width,
                    dropout,
                )
                for name, (n_blocks, hidden, layers) in shapes.items()
            }
        )
        #: Features of all members together.
        self.n_features_out = len(self.members) * fc_width
        n_members = len(self.members)
        uniform = torch.full((n_members,), 1 / n_members, dtype=torch.float64)
        self.register_buffer("member_weights", uniform)
        self.register_buffer("mean", torch.zeros(n_features, 1))
        self.register_buffer("std", torch.ones(n_features, 1))

    def standardise(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Set the statistics that inputs are standardised with.

        Parameters
        ----------
        mean, std : ndarray of shape (n_features,)
            Mean and standard deviation of every feature over the training frames.
        """
        self.mean.copy_(torch.as_tensor(mean)[:, None])
        self.std.copy_(torch.as_tensor(std)[:, None])

    def forward(self, audio: Tensor, reference: None = None) -> TFMixOutput:
        """Classify a batch.

        Parameters
        ----------
        audio : Tensor of shape (n, C, n_features / C, T) or (n, n_features)
            Cells; channels are features too, and vectors sequences of one frame.
        reference : None
            Not used: there is no other modality.

        Returns
        -------
        TFMixOutput
            Log-probabilities of the ensemble, and each member's scores.
        """
        x = audio.unsqueeze(2) if audio.ndim == 2 else audio.flatten(1, -2)
        x = (x.float() - self.mean) / self.std
        x = x.to(next(self.parameters()).dtype)
        outputs = {name: member(x) for name, member in self.members.items()}
        log_proba = torch.stack([logits.log_softmax(1) for _, logits in outputs.values()])
        log_weights = self.member_weights.log().to(x.dtype)[:, None, None]
        return TFMixOutput(
            {"audio": torch.logsumexp(log_proba + log_weights, 0)},
            {"audio": [torch.cat([features for features, _ in outputs.values()], dim=1)]},
            {name: logits for name, (_, logits) in outputs.items()},
        )
