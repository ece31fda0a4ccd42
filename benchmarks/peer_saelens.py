"""Train with SAELens, as one of its users would, and say when each step was done.

    python peer_saelens.py WORKLOAD.json

Runs in the environment of peers-requirements.txt, without our code. Prints a line of JSON for its
version, one for each step (when the last of its SAEs was done with it, and the rows), and one for
the end.

Its own `MultiSAETrainingRunner`, which shares one forward among several SAEs, and the nearest it
has to what we train: Matryoshka BatchTopK autoencoders of the MLPs' outputs, of the same groups
(it has no Matryoshka transcoders). Its defaults otherwise: Adam, mixing buffer, auxiliary loss from
its window of dead latents on, float32. What is set, and why:
- `AutoModelForCausalLM`, hooked at six modules, which stops after the last of them and attends by
  SDPA; its default, HookedTransformer, computes attention in plain products and is slower;
- contexts as we pack them, tokenized beforehand, which it recommends; the rows of special tokens
  are left out, as we leave them out;
- bfloat16, where it is asked for: its switches for autocast, of the model and of the SAEs;
- its mixing buffer, 2,560 rows by default, holds a quarter more than a batch at least;
- W&B, and with it its evaluations, are off, and so is the progress bar. By default it writes no
  checkpoint; the trained SAEs are saved at the end.
"""

import contextlib
import json
import sys
import time
import warnings
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.optim.optimizer import register_optimizer_step_post_hook

with contextlib.redirect_stdout(sys.stderr):
    import sae_lens

PRINTED = sys.stdout


def say(**line):
    print(json.dumps(line), file=PRINTED, flush=True)


def main(file):
    work = json.loads(Path(file).read_text())
    torch.set_num_threads(work["threads"])
    ids_CT = np.load(work["contexts"])
    say(tool="sae-lens", version=sae_lens.__version__, threads=torch.get_num_threads())
    hooks = {f"L{layer:02d}": f"model.layers.{layer}.mlp" for layer in work["layers"]}
    saes = {
        name: sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(
            d_in=work["d_model"],
            d_sae=work["d_sae"],
            k=work["k"],
            matryoshka_widths=[*accumulate(work["group_sizes"])],
        )
        for name in hooks
    }
    half = work["dtype"] == "bfloat16"
    config = sae_lens.MultiSAETrainingRunnerConfig(
        saes=saes,
        hook_names=hooks,
        model_name=work["model"],
        model_class_name="AutoModelForCausalLM",
        context_size=ids_CT.shape[1],
        n_batches_in_buffer=max(20, work["batch_tokens"] * 5 // (4 * ids_CT.shape[1])),
        training_tokens=work["steps"] * work["batch_tokens"],
        train_batch_size_tokens=work["batch_tokens"],
        exclude_special_tokens=work["special_ids"],
        device=work["device"],
        autocast=half,
        autocast_lm=half,
        checkpoint_path=None,
        output_path=work["out"],
        logger=sae_lens.LoggingConfig(log_to_wandb=False),
    )
    contexts = Dataset.from_dict({"input_ids": ids_CT})
    runner = sae_lens.MultiSAETrainingRunner(config, override_dataset=contexts)
    calls = 0

    def note(*_):  # each SAE has an optimizer
        nonlocal calls
        calls += 1
        if calls % len(saes) == 0:
            if calls == len(saes) * work["warmup"] and work["device"] != "cpu":
                torch.cuda.synchronize()  # what is timed begins when the GPU has come so far
            say(step=calls // len(saes), at=time.monotonic(), rows=work["batch_tokens"])

    register_optimizer_step_post_hook(note)
    say(lr=config.lr, optimizer="adam")
    runner.run()
    say(ended=time.monotonic())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        main(sys.argv[1])
