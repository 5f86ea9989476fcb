"""The flight recorder for GPU memory: records, survives the crash, explains why memory ran out."""

__version__ = "1.0.0.dev0"
