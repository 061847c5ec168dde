# SPDX-License-Identifier: Apache-2.0
"""Writes a training checkpoint as a Hugging Face folder.

Owns the folder's files. The weights are stored as bf16 under the published
names, one tensor per expert, sorted by name.

    export.py --checkpoint DIR/checkpoint.pt --tokenizer FILE --out DIR
              [--mean] [--check]

--mean takes the running mean of the weights, the better choice while the
learning rate is still high. --check loads the folder with transformers and
compares its logits with those of model.py, both in f32 on the stored weights.
"""

import argparse
import json
import os
import shutil

import torch
from safetensors.torch import save_file

from model import Model, Shape, config, published

GENERATION = {
    "do_sample": True,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


def write_json(folder, name, obj):
    with open(os.path.join(folder, name), "w") as f:
        json.dump(obj, f, indent=2)
        f.write("\n")


def check(model, folder, tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    theirs = AutoModelForCausalLM.from_pretrained(folder,
                                                  dtype=torch.float32).eval()
    tok = AutoTokenizer.from_pretrained(folder)
    ours = {k: v.to(torch.bfloat16).float()
            for k, v in model.state_dict().items()}
    model.load_state_dict(ours)
    text = ("Once upon a time, there was a little dog named Max.\n"
            "\"I'm 12 years old,\" he said -- caf\u00e9!<|endoftext|>")
    from tokenizers import Tokenizer
    ids = Tokenizer.from_file(tokenizer).encode(text).ids
    assert tok(text)["input_ids"] == ids, "the tokenizers differ"
    x = torch.tensor([ids * 8])[:, :model.s.context]
    with torch.no_grad():
        a, b = model(x)[0], theirs(x).logits
    print(f"logits: {x.shape[1]} tokens, largest {b.abs().max():.3f}, largest "
          f"difference {(a - b).abs().max():.2e}; both tokenizers agree")
    assert (a - b).abs().max() < 1e-3 * b.abs().max()
    prompt = tok("Once upon a time", return_tensors="pt")
    torch.manual_seed(1)
    out = theirs.generate(**prompt, max_new_tokens=200)
    print(tok.decode(out[0]))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--checkpoint", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--mean", action="store_true")
    ap.add_argument("--check", action="store_true")
    args = ap.parse_args()
    torch.set_num_threads(1)

    z = torch.load(args.checkpoint, map_location="cpu", weights_only=False)
    shape = Shape(**z["shape"])
    model = Model(shape)
    model.load_state_dict(z["mean" if args.mean else "model"])
    model.eval()
    os.makedirs(args.out, exist_ok=True)
    tensors = {k: v.detach().to(torch.bfloat16).contiguous()
               for k, v in sorted(published(model).items())}
    save_file(tensors, os.path.join(args.out, "model.safetensors"),
              metadata={"format": "pt"})
    write_json(args.out, "config.json", config(shape))
    write_json(args.out, "generation_config.json", GENERATION)
    write_json(args.out, "tokenizer_config.json", {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "model_max_length": shape.context,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    })
    shutil.copyfile(args.tokenizer, os.path.join(args.out, "tokenizer.json"))
    for name in os.listdir(args.out):
        os.chmod(os.path.join(args.out, name), 0o644)
    size = sum(os.path.getsize(os.path.join(args.out, n))
               for n in os.listdir(args.out))
    print(f"step {z['step']}, {z['tokens']} tokens: {len(tensors)} tensors, "
          f"{size} bytes in all")
    if args.check:
        check(model, args.out, args.tokenizer)


if __name__ == "__main__":
    main()
