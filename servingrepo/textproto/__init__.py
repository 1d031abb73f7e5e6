"""Protobuf's text format as its C++ library reads it: what TensorFlow Serving takes is taken, nothing else."""

from servingrepo.textproto.mistakes import BadText, Mistake, Remark
from servingrepo.textproto.parsing import parse

__all__ = ["BadText", "Mistake", "Remark", "parse"]
