# SPDX-License-Identifier: Apache-2.0
"""libmoerun from Python: the logits of every position of a text.

Only moe/moe.h is used (options, engine, request with on_logits); the structs
below are its, field by field.
"""
import ctypes as c

import numpy as np

FROM_ARG, SCORE, IGNORE_EOS = 4, 2, 1
ON_LOGITS = c.CFUNCTYPE(None, c.c_void_p, c.c_uint32, c.POINTER(c.c_float),
                        c.c_uint32)


class Error(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("status", c.c_int32),
                ("native", c.c_int64), ("text", c.c_char * 496)]


class Sampling(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("top_k", c.c_uint32)] + \
        [(n, c.c_float) for n in ("temperature", "top_p", "min_p",
                                  "repeat", "presence", "frequency")] + \
        [("seed", c.c_uint64)]


class Request(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("flags", c.c_uint32),
                ("prompt", c.POINTER(c.c_uint32)), ("n_prompt", c.c_size_t),
                ("max_tokens", c.c_uint32), ("n_stop", c.c_uint32),
                ("stop", c.c_void_p), ("sampling", c.POINTER(Sampling)),
                ("on_logits", ON_LOGITS), ("ctx", c.c_void_p)]


class Engine:
    """A model in libmoerun.  options: key to value, as in moe.ini."""

    def __init__(self, library, model, options):
        self.lib = c.CDLL(library)
        for f in ("moe_engine_close", "moe_options_free", "moe_free",
                  "moe_sequence_free"):
            getattr(self.lib, f).restype = None
            getattr(self.lib, f).argtypes = [c.c_void_p]
        self.err = Error(struct_size=c.sizeof(Error))
        o, self.e = c.c_void_p(), c.c_void_p()
        self.call("moe_options_new", c.byref(o))
        for key, value in {"model.path": model, **options}.items():
            self.call("moe_options_set", o, key.encode(),
                      str(value).encode(), c.c_uint32(FROM_ARG))
        self.call("moe_engine_open", o, c.byref(self.e))
        self.lib.moe_options_free(o)

    def call(self, name, *args):
        if getattr(self.lib, name)(*args, c.byref(self.err)) != 0:
            raise SystemExit(f"{name}: {self.err.text.decode()}")

    def close(self):
        self.lib.moe_engine_close(self.e)

    def encode(self, text):
        ids, n = c.POINTER(c.c_uint32)(), c.c_size_t()
        b = text.encode()
        self.call("moe_engine_encode", self.e, b, c.c_size_t(len(b)),
                  c.c_uint32(0), c.byref(ids), c.byref(n))
        out = list(ids[:n.value])
        self.lib.moe_free(ids)
        return out

    def logits(self, ids, take):
        """take(position, logits (vocab,)) for each position of ids; the
        array is the engine's and lives during the call only."""
        failed = []

        @ON_LOGITS
        def on_logits(_, position, p, vocab):
            try:
                take(position, np.ctypeslib.as_array(p, (vocab,)))
            except Exception as e:  # it cannot pass through C
                failed.append(e)

        prompt = (c.c_uint32 * len(ids))(*ids)
        greedy = Sampling(struct_size=c.sizeof(Sampling), top_p=1, repeat=1)
        r = Request(struct_size=c.sizeof(Request), flags=SCORE | IGNORE_EOS,
                    prompt=prompt, n_prompt=len(ids), max_tokens=0,
                    sampling=c.pointer(greedy), on_logits=on_logits)
        s, active = c.c_void_p(), c.c_uint32(1)
        self.call("moe_engine_submit", self.e, c.byref(r), c.byref(s))
        while active.value:
            self.call("moe_engine_step", self.e, c.byref(active))
        self.lib.moe_sequence_free(s)
        if failed:
            raise failed[0]
