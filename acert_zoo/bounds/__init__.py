"""Bounds on network outputs over a box of inputs: IBP, rounding-sound IBP, auto-LiRPA."""
