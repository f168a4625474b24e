"""What the common tests build of every public estimator.

A new estimator needs a row here; ``test_completeness`` fails without one.
"""

from skfdan import FDANClassifier
from skfdan.preprocessing import MFCC, FaceFrames, MelSpectrogram

EVERYTHING = slice(0, None)

INSTANCES = {
    "FDANClassifier": [
        FDANClassifier(),
        # Both branches, attention and LMMD on a flat matrix, all columns in each.
        FDANClassifier(visual=EVERYTHING, audio=EVERYTHING, max_epochs=60),
    ],
    "FaceFrames": [FaceFrames()],
    "MFCC": [MFCC()],
    "MelSpectrogram": [MelSpectrogram()],
}
