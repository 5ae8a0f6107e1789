"""The structures that Python and the kernels share, field by field as dropout.h, panels.h, linear.h and pass.h have them."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int32, c_long, c_void_p


class Mask(ctypes.Structure):
    """dropout.h"""

    _fields_ = (("rows", c_void_p), ("columns", c_void_p), ("limit", c_int32), ("scale", c_float))


class Matrix(ctypes.Structure):
    """panels.h"""

    _fields_ = (
        ("parts", c_void_p * 3),
        ("rows", c_long * 3),
        ("panel", c_void_p),
        *((name, c_long) for name in ("d_in", "d_out", "count")),
    )


class Dropout(ctypes.Structure):
    """linear.h, as sites; pass.h all below these"""

    _fields_ = (("limit", c_int32), ("scale", c_float))


class Site(ctypes.Structure):
    _fields_ = (
        *((name, c_long) for name in ("d_out", "rank")),
        *((name, c_void_p) for name in ("lora_A", "lora_B", "magnitude", "squared_norms")),
        ("scale", c_float),
        ("dropout", Dropout),
        *((name, c_void_p) for name in ("grad_lora_A", "grad_lora_B", "grad_magnitude", "grad_bias")),
    )


class Sites(ctypes.Structure):
    _fields_ = (("matrix", Matrix), ("bias", c_void_p), ("count", c_long), ("parts", Site * 3), ("number", c_long))


class Norm(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("weight", "bias")),
        ("epsilon", c_float),
        ("dropout", Dropout),
        ("grad_bias", c_void_p),
        ("number", c_long),
    )


class Distances(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("rows", "places")),
        *((name, c_long) for name in ("count", "longest")),
        *((name, c_int) for name in ("by_key", "by_query")),
        ("dropout", Dropout),
        ("grad_rows", c_void_p),
    )


class Layer(ctypes.Structure):
    _fields_ = (
        *((name, c_long) for name in ("hidden", "heads", "width", "source_count", "window")),
        *((name, c_int) for name in ("firsts_only", "all_ask", "pre_norm")),
        ("angles", c_void_p),
        ("distances", Distances),
        ("probabilities", Dropout),
        ("sources", Sites * 3),
        *((name, Sites) for name in ("attention_output", "ffn_in", "ffn_out")),
        *((name, Norm) for name in ("attention_norm", "ffn_norm")),
    )


class LayerPass(ctypes.Structure):
    _fields_ = (
        ("layer", Layer),
        *((name, c_long) for name in ("number_count", "size")),
        *((name, c_void_p) for name in ("numbers", "keep", "x", "low", "out", "out_low")),
        *((name, c_void_p) for name in ("grad", "grad_low", "grad_x", "below")),
    )


class Group(ctypes.Structure):
    _fields_ = (
        ("lengths", c_void_p),
        *((name, c_long) for name in ("texts", "longest", "start", "first_text")),
        ("bias", c_void_p),
        *((name, c_long) for name in ("bias_text", "bias_head", "bias_query")),
    )


class Batch(ctypes.Structure):
    _fields_ = (
        *((name, c_long) for name in ("tokens", "texts", "group_count")),
        *((name, c_void_p) for name in ("groups", "firsts", "columns", "tokens_of", "texts_of")),
    )


class Change(ctypes.Structure):
    """linear.h, and all below"""

    _fields_ = (
        ("down", c_void_p),
        ("up", c_void_p * 3),
        ("padded", c_long),
        ("depth", c_long * 3),
        ("inlet", c_void_p),
        *((name, c_void_p * 3) for name in ("gain", "bias")),
    )


class Member(ctypes.Structure):
    _fields_ = (("changes", c_void_p), ("biases", c_void_p))


class Owners(ctypes.Structure):
    _fields_ = (*((name, c_void_p) for name in ("starts", "of_row", "members")), ("count", c_long))


SHARED = (Mask, Matrix, Site, Sites, Norm, Layer, LayerPass, Group, Batch, Change, Member, Owners)
"""in the order in which library.h gives their sizes, behind a number's"""
