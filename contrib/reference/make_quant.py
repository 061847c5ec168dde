# SPDX-License-Identifier: Apache-2.0
"""make_quant.py - quantized tensors and checkpoints by compressed-tensors.

Writes tests/quant/fixtures/: tables of the small float types, single tensors
in every scheme, and quantized checkpoints with the answers of their
dequantized weights.  The README.md there says what the files hold.  The
scales are the plain minimum and maximum of the package: how good a
quantization is, is no matter here, only how it is to be read.

usage: make_quant.py [--out DIR] [NAME...]
"""

import argparse
import json
import math
import os
import re
import tempfile

import compressed_tensors
import numpy as np
import safetensors
import safetensors.torch
import torch
from compressed_tensors.compressors import BaseCompressor, ModelCompressor
from compressed_tensors.compressors.nvfp4.helpers import (
    pack_fp4_to_uint8, unpack_fp4_from_uint8)
from compressed_tensors.quantization import (QuantizationArgs,
                                             QuantizationConfig,
                                             QuantizationScheme,
                                             preset_name_to_scheme)
from compressed_tensors.quantization.quant_args import FP4_E2M1_DATA
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import AutoConfig, CompressedTensorsConfig

import make_models
import tiny

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "quant", "fixtures")
VERSION = {"compressed-tensors": compressed_tensors.__version__,
           "torch": torch.__version__.split("+")[0]}


# ------------------------------------------------------ small float types

def bits(values):
    return torch.as_tensor(values, dtype=torch.float32).view(
        torch.int32).to(torch.int64).bitwise_and(0xFFFFFFFF).tolist()


def floats(words):
    return torch.tensor([w - (1 << 32) if w >= 1 << 31 else w for w in words],
                        dtype=torch.int32).view(torch.float32)


def edges(values):
    """Midpoints between neighbours, and the floats on each side of them."""
    values = sorted({v for v in values if math.isfinite(v) and v >= 0})
    mids = [(a + b) / 2 for a, b in zip(values, values[1:])]
    words = []
    for w in bits(mids):
        words += [w - 1, w, w + 1]
    return words


def rows(words, *dtypes):
    """[f32 bits, code in each type] for each input and its negative, as
    torch casts; each row as one list."""
    words = words + [w | 1 << 31 for w in words]
    x = floats(words)
    out = [words]
    for d in dtypes:
        c = x.to(d).view(torch.uint8 if d.itemsize == 1 else torch.int16)
        out.append((c.to(torch.int32) & (0xFF if d.itemsize == 1 else 0xFFFF))
                   .tolist())
    return [list(r) for r in zip(*out)]


def fnv1a64(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return "%016x" % h


def small_floats():
    out = {"made_with": VERSION}
    for name, dtype in (("e4m3", torch.float8_e4m3fn),
                        ("e5m2", torch.float8_e5m2)):
        value = torch.arange(256, dtype=torch.uint8).view(dtype).float()
        nan = torch.isnan(value)
        words = bits(value)
        out[name] = [None if n else w for n, w in zip(nan.tolist(), words)]
        top = float(torch.finfo(dtype).max)
        inside = edges(value.tolist())
        inside += bits([0.0, 1.0, top, 2.0 ** -20, 1e-30]) + [1]
        out[name + "_round"] = [r for r in rows(inside, dtype)
                                if abs(float(floats(r[:1])[0])) <= top]
    # E8M0 is torch's; of E2M1 it has no numbers, so these are the package's.
    scale = torch.arange(256, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    out["e8m0"] = bits(scale.float())
    out["e8m0"][255] = None
    pairs = torch.tensor([[2 * i | (2 * i + 1) << 4 for i in range(8)]],
                         dtype=torch.uint8)
    value = unpack_fp4_from_uint8(pairs, 1, 16, torch.float32)[0]
    out["e2m1"] = bits(value)
    words = edges(value.tolist()) + bits([0.0, 6.0, 2.0 ** -20, 1e-30]) + [1]
    words += [w | 1 << 31 for w in words]
    codes = pack_fp4_to_uint8(FP4_E2M1_DATA.cast_to_fp4(
        torch.stack([floats(words), floats(words)], 1)))
    out["e2m1_round"] = [[w, c & 15] for w, c in zip(
        words, codes.flatten().tolist())]
    for name, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16)):
        codes = torch.arange(65536, dtype=torch.int32).to(torch.int16)
        value = codes.view(dtype).float()
        keep = ~torch.isnan(value)
        out[name + "_all"] = fnv1a64(
            np.array(bits(value[keep]), dtype="<u4").tobytes())
        gen = np.random.Generator(np.random.PCG64(16))
        some = sorted(gen.choice(0x7C00 if name == "f16" else 0x7F80,
                                 60, replace=False).tolist())
        some = sorted(set(some + [0, 1, 2, 0x3FF, 0x400, 0x401, 0x7BFE, 0x7F,
                                  0x80, 0x81, 0x3C00, 0x3F80]))
        words = []
        for c in some:
            pair = torch.tensor([c, c + 1], dtype=torch.int32).to(
                torch.int16).view(dtype).double()
            words += edges(pair.tolist())
        top = float(torch.finfo(dtype).max)
        step = top * float(torch.finfo(dtype).eps) / (
            2 - float(torch.finfo(dtype).eps))
        if name == "f16":
            words += bits([top, top + step / 2 - 0.01, top + step / 2,
                           top + step, 1e30])
        words += [0x7F7FFFFF, 0x7F7F7FFF, 0x7F7F8000, 0x7F800000, 0, 1,
                  0x00800000, 0x007FFFFF]
        out[name + "_round"] = rows(words, dtype)
    return out


# ----------------------------------------------------------------- schemes

def int4(group, symmetric=True, targets=("Linear",)):
    return QuantizationScheme(
        targets=list(targets), format="pack-quantized",
        weights=QuantizationArgs(
            num_bits=4, type="int", strategy="group", group_size=group,
            symmetric=symmetric, dynamic=False))


def preset(name, targets=("Linear",)):
    scheme = preset_name_to_scheme(name, list(targets))
    scheme.format = "float-quantized"
    return scheme


def mxfp4():
    scheme = preset_name_to_scheme("MXFP4A16", ["Linear"])
    scheme.format = "mxfp4-pack-quantized"
    return scheme


def per_tensor():
    return QuantizationScheme(
        targets=["Linear"], format="float-quantized",
        weights=QuantizationArgs(num_bits=8, type="float", strategy="tensor",
                                 symmetric=True, dynamic=False))


def extremes(weight, args):
    """(minimum, maximum) in the shape of the scales."""
    strategy = str(args.strategy)
    if strategy == "tensor":
        return weight.amin().reshape(1), weight.amax().reshape(1)
    if strategy == "channel":
        return weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    if strategy == "group":
        g = weight.unflatten(1, (-1, args.group_size))
        return g.amin(-1), g.amax(-1)
    assert strategy == "block"
    high, wide = args.block_structure
    low, top = [], []
    for r in range(0, weight.shape[0], high):
        cells = [weight[r:r + high, c:c + wide]
                 for c in range(0, weight.shape[1], wide)]
        low.append(torch.stack([x.amin() for x in cells]))
        top.append(torch.stack([x.amax() for x in cells]))
    return torch.stack(low), torch.stack(top)


def compress(weight, scheme):
    """{plane: tensor} of one module, as the package stores it."""
    scale, zero = calculate_qparams(*extremes(weight, scheme.weights),
                                    scheme.weights)
    packer = BaseCompressor.get_value_from_registry(scheme.format)
    return packer.compress({"weight": weight, "weight_scale": scale,
                            "weight_zero_point": zero}, scheme)


def decompress(planes, scheme, exact=True):
    """The weight again; `exact` multiplies in float32, where the package
    alone would round to the type of the scale."""
    packer = BaseCompressor.get_value_from_registry(scheme.format)
    planes = dict(planes)
    if exact:
        planes["weight_scale"] = planes["weight_scale"].float()
    weight = packer.decompress(planes, scheme)["weight"]
    # in bf16 where scales are powers of two, which is exact
    return weight.float() if exact else weight


# ----------------------------------------------------------------- tensors

# name: scheme, rows, columns, type of the source and so of the scales
TENSORS = {
    "int4-g32": (lambda: int4(32), 7, 96, "float32"),
    "int4-g64": (lambda: int4(64), 10, 192, "bfloat16"),
    "int4-g128": (lambda: int4(128), 6, 384, "float16"),
    "int4-g32-asym": (lambda: int4(32, False), 11, 160, "bfloat16"),
    # Not 8 rows: the package cannot read its own single row of zero points.
    "int4-g64-asym": (lambda: int4(64, False), 16, 128, "float32"),
    "int4-g128-asym": (lambda: int4(128, False), 17, 256, "float16"),
    "fp8-tensor": (per_tensor, 9, 45, "bfloat16"),
    "fp8-channel": (lambda: preset("FP8_DYNAMIC"), 13, 37, "float32"),
    "fp8-channel-bf16": (lambda: preset("FP8_DYNAMIC"), 6, 64, "bfloat16"),
    "fp8-block": (lambda: preset("FP8_BLOCK"), 131, 150, "bfloat16"),
    "mxfp4": (mxfp4, 9, 160, "bfloat16"),
}


def tensor(name, out):
    make, high, wide, dtype = TENSORS[name]
    scheme = make()
    w = tiny.uniform(7, name, (high, wide))
    w *= 0.1 * (1 + 3 * np.abs(tiny.uniform(8, name, (high, 1))))
    group = scheme.weights.group_size or wide
    w[1, :group] = 0.0              # a group with nothing in it
    w[2, :group] = np.abs(w[2, :group])     # all above zero
    w[3, :group] = -np.abs(w[3, :group])    # all below
    w[4, 5] = 3.0                   # one that leaves the others few codes
    w[5, :4] = [0.0, -0.0, 1e-6, -1e-6]
    source = torch.from_numpy(w.astype(np.float32)).to(tiny.DTYPES[dtype])
    planes = compress(source, scheme)
    decoded = decompress(planes, scheme)
    error = float((decoded - source.float()).abs().max())
    assert decoded.shape == source.shape and error < 0.3, (name, error)
    tensors = {"source": source, "decoded": decoded.contiguous()}
    tensors.update({k: v.contiguous() for k, v in planes.items()})
    if dtype != "float32":
        tensors["decoded_native"] = decompress(
            planes, scheme, False).contiguous()
        assert tensors["decoded_native"].dtype == source.dtype
    path = os.path.join(out, name + ".safetensors")
    safetensors.torch.save_file(tensors, path, metadata={
        "scheme": json.dumps(scheme.model_dump(mode="json"), sort_keys=True)})
    os.chmod(path, 0o644)
    print("%-18s %3d x %3d %-8s %6.1f kB, largest error %.3g" % (
        name, high, wide, dtype, os.path.getsize(path) / 1000, error))


# ------------------------------------------------------------- checkpoints

GATES = ["lm_head", "re:.*mlp.gate$"]
SHAPE = make_models.moe(104, 64, 2, 4, 2, 32, 4, 2, intermediate_size=64,
                        head_dim=24, max_window_layers=2)
WIDE = make_models.moe(96, 48, 2, 6, 2, 36, 3, 2, intermediate_size=64,
                       head_dim=24)
# name: schemes, format, ignored (None: by full names), type, shapes
MODELS = {
    "qwen3_moe-w4a16": ([lambda: int4(32)], "pack-quantized", GATES,
                        "bfloat16", SHAPE),
    "qwen3_moe-mxfp4": ([mxfp4], "mxfp4-pack-quantized", GATES, "bfloat16",
                        SHAPE),
    "qwen3_moe-w4a16-asym": ([lambda: int4(32, False)], "pack-quantized",
                             None, "float16", SHAPE),
    "qwen3_moe-fp8": ([lambda: preset("FP8_DYNAMIC")], "float-quantized",
                      None, "bfloat16", SHAPE),
    "qwen3_moe-fp8-block": ([lambda: preset("FP8_BLOCK")], "float-quantized",
                            GATES, "bfloat16", WIDE),
    "qwen3_moe-mixed": ([
        lambda: preset("FP8_DYNAMIC", [r"re:.*self_attn\.[qkvo]_proj$"]),
        lambda: int4(32, True, [r"re:.*mlp\.experts\.\d+\..*_proj$"])],
        "mixed-precision", GATES, "bfloat16", SHAPE),
}


def scheme_for(module, schemes, ignored):
    for name in ignored:
        if name == module or (name.startswith("re:")
                              and re.match(name[3:], module)):
            return None
    for scheme in schemes:
        for target in scheme.targets:
            if target == "Linear" or re.match(target[3:], module):
                return scheme
    return None


def quantized(name, seed, folder, dense_folder):
    """Write the quantized checkpoint, and the same dequantized in float32;
    returns {module: scheme}."""
    makers, fmt, ignored, dtype, shape = MODELS[name]
    schemes = [m() for m in makers]
    spec = make_models.Fixture("qwen3_moe", dtype, **shape)
    with tempfile.TemporaryDirectory() as tmp:
        make_models.dump_config(os.path.join(tmp, "config.json"),
                                spec.published())
        config = AutoConfig.from_pretrained(tmp)
        shapes = tiny.published_names(config, os.path.join(tmp, "names"))
    if ignored is None:
        ignored = ["model.layers.%d.mlp.gate" % i
                   for i in range(config.num_hidden_layers)] + ["lm_head"]
    stored, dense, chosen = {}, {}, {}
    for tensor_name, size in sorted(shapes.items()):
        w = tiny.weight(seed, tensor_name, size, False).to(
            tiny.DTYPES[dtype])
        module = tensor_name.rsplit(".", 1)[0]
        scheme = None
        if len(size) == 2 and "embed_tokens" not in module:
            scheme = scheme_for(module, schemes, ignored)
        if scheme is None:
            stored[tensor_name] = w
            dense[tensor_name] = w.float()
            continue
        chosen[module] = scheme
        planes = compress(w, scheme)
        for k, v in planes.items():
            stored[module + "." + k] = v.contiguous()
        dense[tensor_name] = decompress(planes, scheme).contiguous()
    for where, tensors in ((folder, stored), (dense_folder, dense)):
        tiny.fresh(where)
        safetensors.torch.save_file(
            tensors, os.path.join(where, "model.safetensors"),
            metadata={"format": "pt"})
        config.dtype = dtype if where == folder else "float32"
        config.architectures = ["Qwen3MoeForCausalLM"]
        config.save_pretrained(where)
    make_models.dump_config(
        os.path.join(folder, "generation_config.json"),
        {"_from_model_config": True, "bos_token_id": config.bos_token_id,
         "eos_token_id": config.eos_token_id})
    ModelCompressor(quantization_config=QuantizationConfig(
        config_groups={"group_%d" % i: s for i, s in enumerate(schemes)},
        format=fmt, ignore=ignored, quantization_status="compressed",
    )).update_config(folder)
    with open(os.path.join(folder, "config.json"), "a",
              encoding="utf-8") as f:
        f.write("\n")
    return chosen


def read_by_transformers(folder, ids):
    """Logits as transformers itself reads the quantized folder, with the
    scales widened so that it multiplies in float32; None where it cannot."""
    with tempfile.TemporaryDirectory() as tmp:
        path = os.path.join(folder, "model.safetensors")
        tensors = safetensors.torch.load_file(path)
        tensors = {k: v.float() if k.endswith("_scale")
                   and v.is_floating_point() else v
                   for k, v in tensors.items()}
        safetensors.torch.save_file(
            tensors, os.path.join(tmp, "model.safetensors"),
            metadata={"format": "pt"})
        AutoConfig.from_pretrained(folder).save_pretrained(tmp)
        model = tiny.AutoModelForCausalLM.from_pretrained(
            tmp, dtype=torch.float32, attn_implementation="eager",
            experts_implementation="eager",
            quantization_config=CompressedTensorsConfig(dequantize=True))
        return tiny.logits_of(model.eval(), ids)[0]


def checkpoint(name, out):
    folder = os.path.join(out, name)
    dtype = MODELS[name][3]
    with tempfile.TemporaryDirectory() as tmp:
        dense = os.path.join(tmp, "dense")
        for seed in range(1, 400):
            chosen = quantized(name, seed, folder, dense)
            try:
                ref = tiny.answers(dense, "float32", seed)
            except tiny.Unfit as e:
                why = str(e)
                continue
            break
        else:
            raise SystemExit("%s: no seed fits, the last: %s" % (name, why))
        model = tiny.load(dense, torch.float32)
        ids = ref["prompt"] + ref["greedy"]
        want, _ = tiny.logits_of(model, ids)
        try:
            other = read_by_transformers(folder, ids)
            same = "%.2g" % float((other - want).abs().max()
                                  / want.abs().max())
        except Exception as e:      # its own limits are not ours
            same = "it cannot: " + type(e).__name__
    ref = dict({"family": "qwen3_moe"}, **ref)
    ref["dtype"] = dtype
    ref["made_with"] = tiny.versions(*VERSION.items())
    tiny.dump(os.path.join(folder, "reference.json"), ref)
    size = tiny.folder_size(folder)
    assert size <= tiny.LIMIT, (name, size)
    print("%-21s %-8s seed %3d, %d quantized modules, %6.1f kB, margins %s, "
          "read by transformers: %s" % (
              name, dtype, seed, len(chosen), size / 1000, ref["margins"],
              same), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default=OUT)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(args.out, exist_ok=True)
    if not args.names:
        tiny.dump(os.path.join(args.out, "small-floats.json"),
                  small_floats())
    for name in args.names or list(TENSORS) + list(MODELS):
        (tensor if name in TENSORS else checkpoint)(name, args.out)


if __name__ == "__main__":
    main()
