"""Toy transcripts: everyday words, among them some that go with an emotion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["EMOTION_WORDS", "say"]

#: Words that go with an emotion; no word stands in two lists.
EMOTION_WORDS = {
    "anger": ("enough", "furious", "shouting", "unfair", "slammed", "blame"),
    "boredom": ("again", "dull", "yawning", "endless", "whatever", "waiting"),
    "calm": ("gently", "quiet", "breathing", "rest", "peaceful", "slowly"),
    "disgust": ("rotten", "smelly", "filthy", "sticky", "awful", "spoiled"),
    "fear": ("scared", "hiding", "danger", "dark", "trembling", "careful"),
    "happiness": ("wonderful", "laughing", "glad", "party", "sunny", "hooray"),
    "neutral": ("usual", "paper", "number", "schedule", "between", "standard"),
    "sadness": ("crying", "lonely", "lost", "goodbye", "miss", "grey"),
    "surprise": ("suddenly", "really", "unexpected", "amazing", "wow", "guess"),
}
#: Words that go with none.
EVERYDAY_WORDS = (
    *("the", "table", "train", "we", "morning", "they", "door", "house", "said", "with"),
    *("coffee", "street", "about", "today", "and", "then", "window", "people", "went", "it"),
)
LENGTH = 7
#: How likely a word goes with the emotion at a separation of 1, and with any emotion at all.
TOLD, STRAY = 0.15, 0.15


def say(emotion: str, emotions: Sequence[str], separation: float, rng: np.random.Generator) -> str:
    """Make up a sentence.

    Parameters
    ----------
    emotion : str
        A key of `EMOTION_WORDS`.
    emotions : sequence of str
        The emotions of the corpus; stray words are drawn from all of them.
    separation : float
        Scales the share of words that go with the emotion; at 0 the words tell nothing.
    rng : Generator
        Draws the words.

    Returns
    -------
    str
        Seven words, the first with a capital, and a full stop.
    """
    words = []
    for kind in rng.random(LENGTH):
        if kind < TOLD * separation:
            choice = EMOTION_WORDS[emotion]
        elif kind < TOLD * separation + STRAY:
            choice = EMOTION_WORDS[emotions[rng.integers(len(emotions))]]
        else:
            choice = EVERYDAY_WORDS
        words.append(choice[rng.integers(len(choice))])
    return " ".join(words).capitalize() + "."
