"""SynthBrain: synthetic brain MRI with and without lesions, generated; nothing to download."""

from .dataset import SynthBrain

__all__ = ["SynthBrain"]
