"""Protobuf's text format as its C++ library reads it: what TensorFlow Serving takes is taken, nothing else."""

from servingrepo.textproto.parsing import BadText, Mistake, Remark, parse

__all__ = ["BadText", "Mistake", "Remark", "parse"]
