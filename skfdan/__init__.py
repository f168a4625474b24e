"""Speech emotion recognition from voice and face, in scikit-learn style."""
