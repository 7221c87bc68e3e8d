"""Distil image-restoration networks into spiking students, and put them on neuromorphic chips.

The rooms, from the top down: ``cli`` -> ``report`` -> ``energy`` -> ``simulate`` -> ``quantize`` -> ``graph``;
``distill`` -> ``networks`` -> ``graph``; ``targets`` -> ``quantize``, ``hardware``. Only ``networks`` and ``distill``
need torch.
"""

__version__ = "0.1.0"
