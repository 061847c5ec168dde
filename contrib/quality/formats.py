# SPDX-License-Identifier: Apache-2.0
"""Weights in 4 and 8 bits: what moe-run wrote, and what others would.

Owns safetensors files, the decoding of moe-run's planes, and the peers'
formats: those of llama.cpp by its own quantizer (ggml.sh), and integers with
one scale a row.  All give back f32.
"""
import ctypes as c
import json
import os
import shutil
import struct

import numpy as np

DTYPE = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I32": "<u4",
         "F8_E4M3": "u1", "F8_E5M2": "u1", "I64": "<i8"}


def widen(raw, dtype):
    """The file's numbers as f32; packed integers stay as they are."""
    if dtype == "BF16":
        return (raw.astype("<u4") << 16).view("<f4")
    if dtype == "F8_E4M3":
        return fp8(4, 3)[raw]
    if dtype == "F8_E5M2":
        return fp8(5, 2)[raw]
    return raw if dtype.startswith("I") else raw.astype("<f4")


def to_bf16(x):
    """Nearest, ties to even."""
    u = np.ascontiguousarray(x, "<f4").view("<u4")
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype("<u2")


def fp8(e, m):
    code = np.arange(256)
    sign = np.where(code & 128, -1.0, 1.0)
    exponent, fraction = code >> m & (1 << e) - 1, code & (1 << m) - 1
    bias = (1 << e - 1) - 1
    x = np.where(exponent == 0, np.ldexp(fraction / (1 << m), 1 - bias),
                 np.ldexp(1 + fraction / (1 << m), exponent - bias))
    return (sign * x).astype("<f4")


class Folder:
    """A checkpoint folder, read whole."""

    def __init__(self, path):
        self.path, self.raw, self.dtype = path, {}, {}
        for name in sorted(os.listdir(path)):
            if not name.endswith(".safetensors"):
                continue
            with open(os.path.join(path, name), "rb") as f:
                head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
                data = f.read()
            for t, info in head.items():
                if t == "__metadata__":
                    continue
                lo, hi = info["data_offsets"]
                self.dtype[t] = info["dtype"]
                self.raw[t] = np.frombuffer(
                    data[lo:hi], DTYPE[info["dtype"]]).reshape(info["shape"])

    def modules(self, select):
        return [t[:-len(".weight")] for t in self.raw
                if t.endswith(".weight") and select(t)]

    def plane(self, module, what):
        t = f"{module}.{what}"
        return widen(self.raw[t], self.dtype[t]) if t in self.raw else None

    def bytes(self, module):
        return sum(self.raw[t].nbytes for t in self.raw
                   if t.startswith(module + ".") and not t.endswith("_shape"))

    def decode(self, module):
        """(n, k) f32 of a matrix in one of moe-run's formats."""
        scale = self.plane(module, "weight_scale")
        packed = self.plane(module, "weight_packed")
        if packed is None:
            w = self.plane(module, "weight")
            if scale is None:
                return w
            scale = scale.reshape(1, 1) if scale.size == 1 else scale
            step = [-(-w.shape[i] // scale.shape[i]) for i in (0, 1)]
            step = [1 if s == 1 else 128 if s > 1 and scale.shape[i] > 1
                    else w.shape[i] for i, s in enumerate(step)]
            scale = scale.repeat(step[0], 0).repeat(step[1], 1)
            return w * scale[:w.shape[0], :w.shape[1]]
        shifts = 4 * np.arange(8, dtype="u4")
        n, k = packed.shape[0], packed.shape[1] * 8
        q = (packed[:, :, None] >> shifts & 15).reshape(n, k).astype("<f4")
        zero = self.plane(module, "weight_zero_point")
        if zero is None:
            zero = np.full(scale.shape, 8, "<f4")
        else:
            zero = (zero[:, None, :] >> shifts[:, None] & 15).astype("<f4")
            zero = zero.reshape(-1, scale.shape[1])[:n]
        g = k // scale.shape[1]
        return (q - zero.repeat(g, 1)) * scale.repeat(g, 1)


def write_folder(like, path, weights):
    """The folder `like` with these matrices (module: f32) instead."""
    os.makedirs(path)
    for name in os.listdir(like.path):
        if name.endswith(".json") and "index" not in name:
            shutil.copy(os.path.join(like.path, name), path)
    head, at, parts = {}, 0, []
    for t in like.raw:
        w = weights.get(t[:-len(".weight")] if t.endswith(".weight") else t)
        raw = like.raw[t] if w is None else np.ascontiguousarray(w, "<f4")
        head[t] = {"dtype": like.dtype[t] if w is None else "F32",
                   "shape": list(raw.shape),
                   "data_offsets": [at, at + raw.nbytes]}
        at += raw.nbytes
        parts.append(raw)
    head = json.dumps(head).encode()
    head += b" " * (-len(head) % 8)
    with open(os.path.join(path, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for raw in parts:
            f.write(raw.tobytes())


# ----------------------------------------------------------------- peers --

class Ggml:
    """llama.cpp's formats, without an importance matrix."""

    TYPE = {"Q4_0": (2, 32, 18), "Q5_0": (6, 32, 22), "Q8_0": (8, 32, 34),
            "Q4_K": (12, 256, 144), "MXFP4": (39, 32, 17)}
    ROW = {"Q4_0": "q4_0", "Q5_0": "q5_0", "Q8_0": "q8_0", "Q4_K": "q4_K",
           "MXFP4": "mxfp4"}

    def __init__(self, library):
        # lazily: some of its symbols belong to backends that are not there
        self.lib = c.CDLL(library, mode=os.RTLD_LAZY)
        self.lib.ggml_quantize_chunk.restype = c.c_size_t

    def __call__(self, name, w):
        """(what the format makes of w, bytes)."""
        kind, block, size = self.TYPE[name]
        w = np.ascontiguousarray(w, "<f4")
        out = np.empty_like(w)
        n = w.size // block
        if w.size % block != 0:
            raise SystemExit(f"{name}: {w.shape} is not of whole blocks")
        # a row must hold whole blocks; two rows of 128 make one of 256
        k = w.shape[1] if w.shape[1] % block == 0 else block
        q = np.empty(n * size, "u1")
        got = self.lib.ggml_quantize_chunk(
            c.c_int(kind), w.ctypes.data_as(c.c_void_p),
            q.ctypes.data_as(c.c_void_p), c.c_int64(0),
            c.c_int64(w.size // k), c.c_int64(k), None)
        if got != q.nbytes:
            raise SystemExit(f"{name}: {got} bytes, expected {q.nbytes}")
        getattr(self.lib, "dequantize_row_" + self.ROW[name])(
            q.ctypes.data_as(c.c_void_p), out.ctypes.data_as(c.c_void_p),
            c.c_int64(w.size))
        return out, q.nbytes


def q4_k_as_shipped(ggml, w):
    """As llama.cpp's quantize program: rows that are not of whole blocks of
    256 get Q5_0 instead."""
    return ggml("Q4_K" if w.shape[1] % 256 == 0 else "Q5_0", w)


def int4_channel(w):
    """One 16-bit scale a row, the largest magnitude at 7.5 steps."""
    s = widen(to_bf16(np.maximum(abs(w).max(1, keepdims=True), 1e-30) / 7.5),
              "BF16")
    return np.clip(np.rint(w / s), -8, 7) * s, w.size // 2 + 2 * w.shape[0]
