from skfdan.utils.discovery import all_estimators


def test_only_public_estimators_are_listed():
    found = all_estimators()
    assert list(found) == sorted(found)
    assert {"FDANClassifier", "FaceFrames", "MFCC", "MelSpectrogram"} <= set(found)
    # Bases are no estimators to use.
    assert not {"ModalityClassifier", "CellTransformer", "AudioTransformer"} & set(found)
