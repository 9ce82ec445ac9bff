"""acert-zoo: image classifiers with certified l-inf robustness."""
