"""Train with sparsify, as one of its users would, and say when each step was done.

    python peer_sparsify.py WORKLOAD.json

Runs in the environment of peers-requirements.txt, without our code. Prints a line of JSON for its
version, one for each optimizer step (when it was done, and on how many rows), and one for the end.

Its own `Trainer` and loop, `transcode=True` on the MLP modules, and its defaults: TopK, signum (a
schedule-free sign descent) with its automatic learning rate, no auxiliary loss, float32. What is
set, and why:
- the model without its unembedding, as its own command line loads it for this loss;
- contexts as we pack them, shuffled beforehand, as it asks for; `exclude_tokens` leaves out the
  rows of special tokens, so that both learn and count the same rows;
- nothing is sent to W&B, and no progress bar is drawn;
- checkpoints as by default: every 1,000 steps, and at the end.
Of its two decoders it takes on a CPU the one for CPUs (torch's embedding_bag), else its own kernel
for GPUs.
bfloat16: the model in bfloat16; on a CPU the whole loop in autocast, for which it has no switch. On
a GPU its coders multiply in bfloat16 by themselves, whatever is asked for.
"""

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoModel

with contextlib.redirect_stdout(sys.stderr):  # it prints which decoder it took
    import sparsify

PRINTED = sys.stdout


def say(**line):
    print(json.dumps(line), file=PRINTED, flush=True)


def main(file):
    work = json.loads(Path(file).read_text())
    torch.set_num_threads(work["threads"])
    ids_CT = np.load(work["contexts"])
    per_step = work["batch_tokens"] // ids_CT.shape[1]
    rows = (~np.isin(ids_CT, work["special_ids"])).reshape(-1, per_step * ids_CT.shape[1]).sum(1)
    say(tool="eai-sparsify", version=sparsify.__version__, threads=torch.get_num_threads())
    dtype = getattr(torch, work["dtype"])
    model = AutoModel.from_pretrained(work["model"], dtype=dtype).to(work["device"])
    config = sparsify.TrainConfig(
        sae=sparsify.SparseCoderConfig(
            expansion_factor=0, num_latents=work["d_sae"], k=work["k"], transcode=True
        ),
        batch_size=per_step,
        lr=work["lr"],
        exclude_tokens=work["special_ids"],
        hookpoints=[f"layers.{layer}.mlp" for layer in work["layers"]],
        save_dir=work["out"],
        run_name="sparsify",
        log_to_wandb=False,
    )
    contexts = Dataset.from_dict({"input_ids": ids_CT}).with_format("torch")
    trainer = sparsify.Trainer(config, contexts, model)
    done = iter(range(len(rows)))

    def note(*_):  # one optimizer holds all coders
        step = next(done)
        if step + 1 == work["warmup"] and model.device.type == "cuda":
            torch.cuda.synchronize()  # what is timed begins when the GPU has come so far
        say(step=step + 1, at=time.monotonic(), rows=int(rows[step]))

    register_optimizer_step_post_hook(note)
    (group, *_) = trainer.optimizers[0].param_groups
    say(lr=group["lr"], optimizer=config.optimizer)
    on_cpu = model.device.type == "cpu"
    with torch.autocast("cpu", dtype=dtype, enabled=on_cpu and dtype != torch.float32):
        trainer.fit()
    say(ended=time.monotonic())


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        main(sys.argv[1])
