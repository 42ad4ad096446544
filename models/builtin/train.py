"""Teaches a small Audio Spectrogram Transformer what YAMNet knows and what names of files say.

    python models/builtin/train.py CORPUS --teacher yamnet.safetensors --output MODEL --minutes 100

On a GPU everything but reading happens there. On a CPU two processes learn side by side, each on one core, and share
their gradients; each mixture is then learnt from several times, with other patches left out. A run that was interrupted
continues from ``MODEL/state.pt``; ``--from`` starts another schedule from the weights of an earlier one.

Beside the window's labels, each second is taught: the mean of the tokens of a second tells what the teacher hears in
it. The head for this is left out of the model that is written.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import shutil
import signal
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
from corpus import read_labels
from evaluate import Examiner, load_targets
from mixtures import (
    EXTRACTOR,
    KNOWN_ABOVE,
    NUM_BINS,
    NUM_FRAMES,
    NUM_PATCHES,
    SILENCE,
    Corpus,
    Mixer,
    ask,
    spectrograms,
)
from teacher import EMBEDDING_SIZE, PATCH_FRAMES, YamNet
from torch import Tensor, nn

from ast_cli import ASTConfig, ASTForAudioClassification
from ast_cli.training.adapt import first_positions
from ast_cli.training.muon import Muon

PATCH = 16
NUM_COLUMNS = NUM_FRAMES // PATCH
NUM_TAUGHT_PATCHES = 6  # of a mixture that the teacher hears
WARM_UP, FINAL_RATE = 0.04, 0.01  # shares: of the run; of the highest learning rate
ALL_TOKENS_FROM = 0.85  # of the run
PRINT_S, EVALUATE_S, SAVE_S = 20.0, 900.0, 120.0
HALF_LIFE = 300  # updates, of the average of the weights; less at first
# glibc returns large blocks to the system and fetches them anew, zeroed, for every tensor: a tenth of the time.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(10**11), "MALLOC_TOP_PAD_": str(2**28)}
SECOND_WEIGHT, EMBEDDING_WEIGHT = 0.5, 5.0  # of the losses of seconds


class Student(nn.Module):
    """The model, and the head that is taught second by second."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        self.model = ASTForAudioClassification(config)
        self.second_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.second_head = nn.Linear(config.hidden_size, config.num_labels + EMBEDDING_SIZE)
        nn.init.trunc_normal_(self.second_head.weight, std=0.02)
        encoder = self.model.audio_spectrogram_transformer
        with torch.no_grad():
            self.second_head.bias.zero_()[: config.num_labels] = -5.0  # most classes are not heard
            self.model.head.fc.bias.fill_(-5.0)
            nn.init.trunc_normal_(encoder.cls_token, std=0.02)
            nn.init.trunc_normal_(encoder.dist_token, std=0.02)
            encoder.pos_embed[0, 2:] = first_positions(config.num_patches, config.hidden_size)

    def forward(self, input_values: Tensor, keep: float, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of windows (B, 521), logits of seconds (B, P, 521), and embeddings of seconds (B, P, 1024).

        Args:
            input_values: Shape (B, 512, 64).
            keep: Share of the patches that is heard, random ones of each window.
            starts: The first frame of each second, (B, P).
        """
        encoder = self.model.audio_spectrogram_transformer
        x = encoder.embed(input_values)
        num_patches = x.shape[1] - 2
        order = torch.rand(len(x), num_patches, device=x.device).argsort(1)
        kept = order[:, : round(keep * num_patches)].sort(1).values
        x = torch.cat([x[:, :2], x[:, 2:].gather(1, kept[..., None].expand(-1, -1, x.shape[2]))], 1)
        x = encoder.norm(encoder.run_blocks(x)[0])
        column = (kept % NUM_COLUMNS)[:, None] * PATCH  # first frame of each token, (B, 1, K)
        begin = starts[..., None]
        inside = torch.minimum(column + PATCH, begin + PATCH_FRAMES) - torch.maximum(column, begin)
        inside = inside.clamp(min=0).float()
        seconds = (inside / inside.sum(2, keepdim=True).clamp(min=1)) @ x[:, 2:]
        of_seconds = self.second_head(self.second_norm(seconds))
        num_labels = self.model.config.num_labels
        return self.model.head(encoder.pool(x)), of_seconds[..., :num_labels], of_seconds[..., num_labels:]


@dataclass
class Examples:
    """What the student learns from; each field's first axis counts mixtures."""

    input_values: Tensor  # (B, 512, 64), float16
    targets: Tensor  # (B, 521)
    second_targets: Tensor  # (B, P, 521)
    embeddings: Tensor  # (B, P, 1024)
    starts: Tensor  # (B, P)
    counts: Tensor  # (B, P)

    def __getitem__(self, chosen: Tensor) -> Examples:
        return Examples(*(field[chosen] for field in vars(self).values()))


class Pool:
    """The latest examples, from which batches are drawn."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.size, self.next = capacity, 0, 0
        self.stored: Examples | None = None

    def add(self, examples: Examples) -> None:
        if self.stored is None:
            empty = (torch.empty(self.capacity, *f.shape[1:], dtype=f.dtype) for f in vars(examples).values())
            self.stored = Examples(*empty)
        places = (self.next + torch.arange(len(examples.targets))) % self.capacity
        for name, field in vars(examples).items():
            getattr(self.stored, name)[places] = field
        self.next = int(places[-1]) + 1
        self.size = min(self.capacity, self.size + len(places))

    def draw(self, number: int) -> Examples:
        assert self.stored is not None
        return self.stored[torch.randint(self.size, (number,))]


class Trainer:
    """The student, its moving average, and what one update needs."""

    def __init__(self, options: argparse.Namespace, corpus: Corpus, teacher: YamNet, targets: Tensor) -> None:
        self.options, self.corpus, self.teacher, self.device = options, corpus, teacher, corpus.device
        self.labels = read_labels()
        self.silence = self.labels.index(SILENCE)
        self.mixer = Mixer(corpus, targets)
        self.student = Student(make_config(options, self.labels)).to(self.device)
        if options.start:
            start = ASTForAudioClassification.from_pretrained(str(options.start), dtype=torch.float32)
            self.student.model.load_state_dict(start.state_dict())
        self.average = copy.deepcopy(self.student.model).requires_grad_(False).eval()
        self.precision = torch.bfloat16 if multiplies_bfloat16(self.device) else torch.float32
        if self.device.type == "cpu":  # the gradient of the fused attention takes half of the time in bfloat16
            self.student.model.attn_implementation = "eager"
        if options.compile:
            for block in self.student.model.audio_spectrogram_transformer.blocks:
                block.compile(dynamic=False)
        self.optimizer = make_optimizer(self.student, options.muon_factor)
        self.highest_rate = options.learning_rate * math.sqrt(options.batch_size / 512)
        self.pool = Pool(options.pool) if options.reuse > 1 else None
        self.step = 0
        self.embedding_scale: Tensor | None = None

    def examples(self, number: int) -> Examples:
        """Make new examples."""
        mixtures = self.mixer.batch(number)
        answers = ask(self.teacher, mixtures.usual, mixtures.num_frames, NUM_TAUGHT_PATCHES)
        known = mixtures.known * answers.counts.any(1, keepdim=True)
        targets = torch.maximum(answers.together(self.silence), known)
        targets = torch.where(known == KNOWN_ABOVE, known, targets)  # the teacher is surer of "Animal" than of "Dog"
        inaudible = mixtures.waveforms.abs().amax(1) == 0
        targets[inaudible] = F.one_hot(torch.tensor(self.silence, device=self.device), len(self.labels)).float()
        counts = answers.counts & ~inaudible[:, None]
        input_values = spectrograms(mixtures.waveforms, mixtures.num_frames)
        floats = (input_values, targets, answers.scores, answers.embeddings)
        return Examples(*(field.half() for field in floats), answers.starts, counts)

    def batch(self, number: int) -> Examples:
        if self.pool is None:
            return self.examples(number)
        is_first = self.pool.size == 0
        for _ in range(8 if is_first else 1):
            self.pool.add(self.examples(number if is_first else max(1, round(number / self.options.reuse))))
        return self.pool.draw(number)

    def update(self, progress: float) -> dict[str, float]:
        """Learn from one batch; return its losses."""
        batch = self.batch(self.options.batch_size // self.options.processes)
        keep = self.options.keep if progress < ALL_TOKENS_FROM else 1.0
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            logits, second_logits, embeddings = self.student(batch.input_values.float(), keep, batch.starts)
        if self.embedding_scale is None:
            self.embedding_scale = batch.embeddings.float().std((0, 1)).clamp(min=0.05)
            all_reduce([self.embedding_scale])
        window_loss = F.binary_cross_entropy_with_logits(logits.float(), batch.targets.float(), reduction="sum")
        window_loss = window_loss / len(logits)
        weight = batch.counts / batch.counts.sum().clamp(min=1)
        second_loss = F.binary_cross_entropy_with_logits(
            second_logits.float(), batch.second_targets.float(), reduction="none"
        )
        second_loss = (second_loss.sum(2) * weight).sum()
        error = (embeddings.float() - batch.embeddings.float()) / self.embedding_scale
        embedding_loss = (F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none").mean(2) * weight).sum()
        loss = window_loss + SECOND_WEIGHT * second_loss + EMBEDDING_WEIGHT * embedding_loss
        loss.backward()
        gradients = [p.grad for p in self.student.parameters() if p.grad is not None]
        all_reduce(gradients)
        nn.utils.clip_grad_norm_(self.student.parameters(), self.options.clip)
        rate = self.highest_rate * rate_factor(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.update_average()
        return {"window": window_loss.item(), "second": second_loss.item(), "embedding": embedding_loss.item()}

    @torch.no_grad()
    def update_average(self) -> None:
        share = 1 - 0.5 ** (1 / max(1.0, min(HALF_LIFE, 0.1 * self.step)))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.student.model.parameters()), share)

    def state(self, used_s: float) -> dict[str, Any]:
        parts = {"student": self.student, "average": self.average, "optimizer": self.optimizer}
        return {**{n: p.state_dict() for n, p in parts.items()}, "step": self.step, "used_s": used_s}

    def load_state(self, state: dict[str, Any]) -> float:
        """Continue from a state; return how long its run had taken, in seconds."""
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        return float(state["used_s"])


def make_config(options: argparse.Namespace, labels: list[str]) -> ASTConfig:
    return ASTConfig(
        hidden_size=options.width,
        num_hidden_layers=options.depth,
        num_attention_heads=options.width // 64,
        intermediate_size=4 * options.width,
        layer_norm_eps=1e-5,
        frequency_stride=PATCH,
        time_stride=PATCH,
        max_length=NUM_FRAMES,
        num_mel_bins=NUM_BINS,
        id2label=dict(enumerate(labels)),
        problem_type="multi_label_classification",
    )


def make_optimizer(student: Student, muon_factor: float) -> Muon:
    """Return an optimizer with ``factor`` in each group: of the learning rate."""
    blocks = student.model.audio_spectrogram_transformer.blocks
    fused = [block.attn.qkv.weight for block in blocks]
    others = [p for p in blocks.parameters() if p.ndim == 2 and not any(p is q for q in fused)]
    matrices = {id(p) for p in [*fused, *others]}
    rest = [p for p in student.parameters() if id(p) not in matrices]
    groups: list[dict[str, Any]] = [{"params": rest, "weight_decay": 0.0, "factor": 1.0}]
    groups.append({"params": fused, "num_parts": 3, "weight_decay": 0.05, "factor": muon_factor})
    groups.append({"params": others, "num_parts": 1, "weight_decay": 0.05, "factor": muon_factor})
    return Muon(groups, lr=0.0, betas=(0.9, 0.98))


def rate_factor(progress: float) -> float:
    """Rise in a line, fall in half a cosine."""
    if progress < WARM_UP:
        return progress / WARM_UP
    fallen = (progress - WARM_UP) / (1 - WARM_UP)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * fallen))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies matrices of bfloat16 much faster than float32: a GPU, or a CPU with AMX."""
    return device.type == "cuda" or torch.cpu._is_amx_tile_supported()  # type: ignore[no-any-return]


def has_compiler() -> bool:
    return torch.cuda.is_available() or shutil.which("g++") is not None


def all_reduce(tensors: list[Tensor]) -> None:
    """Take the mean of tensors over the processes."""
    if torch.distributed.is_initialized():
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= torch.distributed.get_world_size()
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def save(model: ASTForAudioClassification, folder: Path) -> None:
    """Write a checkpoint folder in the hub's layout, float16."""
    copy.deepcopy(model).half().save_pretrained(folder)
    EXTRACTOR.save_pretrained(folder)


def teacher_targets(corpus: Corpus, teacher: YamNet, folder: Path, silence: int, rank: int, processes: int) -> Tensor:
    """Return what the teacher says of all windows of the corpus, (W, 521); kept in files of ``CORPUS``, one a process.

    Windows to learn from, of which this decides only how often they are drawn, are heard in few places.
    """
    num_windows = len(corpus.window_piece)
    files = [folder / f"targets-{num_windows}-{i}-of-{processes}.pt" for i in range(processes)]
    if not files[rank].exists():
        mine = torch.zeros(num_windows, len(read_labels()), dtype=torch.float16)
        for is_test, num_patches in ((False, NUM_PATCHES // 5), (True, NUM_PATCHES)):
            chosen = (corpus.is_test == is_test).nonzero()[rank::processes, 0]
            for part, window in zip(chosen.split(32), corpus.windows(chosen, 32), strict=True):
                mine[part.cpu()] = ask(teacher, *window, num_patches).together(silence).half().cpu()
        torch.save(mine, files[rank])
    barrier()
    return load_targets(folder, num_windows).to(corpus.device)


def train(rank: int, options: argparse.Namespace) -> None:
    is_first = rank == 0
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.processes > 1:
        address = f"file://{options.rendezvous}"
        torch.distributed.init_process_group("gloo", address, rank=rank, world_size=options.processes)
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(options.seed + rank)
    labels = read_labels()
    corpus = Corpus(options.corpus, labels, device)
    teacher = YamNet(options.teacher, torch.float16 if device.type == "cuda" else torch.float32).to(device)
    if device.type == "cuda":
        teacher.answer = torch.compile(teacher.network, dynamic=False)
    else:
        teacher.with_openvino(1)
    began = time.monotonic()

    def say(text: str) -> None:
        if is_first:
            print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    silence = labels.index(SILENCE)
    taught = teacher_targets(corpus, teacher, options.corpus, silence, rank, options.processes)
    if device.type == "cpu" and multiplies_bfloat16(device):
        teacher.with_openvino(1, "bf16")  # five times as fast; scores differ by less than 1e-4 on average
    examiner = Examiner(corpus, taught)
    torch.manual_seed(options.seed)
    trainer = Trainer(options, corpus, teacher, torch.maximum(taught, corpus.known[corpus.window_piece]))
    torch.manual_seed(options.seed + 1 + rank)
    options.output.mkdir(parents=True, exist_ok=True)
    state_file = options.output / "state.pt"
    used_s = trainer.load_state(torch.load(state_file, weights_only=True)) if state_file.exists() else 0.0
    num_parameters = sum(p.numel() for p in trainer.student.model.parameters())
    say(f"{num_parameters:,} parameters, {len(taught):,} windows, {vars(options)}")
    torch.manual_seed(options.seed + 1 + rank + 7919 * trainer.step)
    is_stopped = []
    signal.signal(signal.SIGTERM, lambda *_: is_stopped.append(True))
    started, last = time.monotonic() - used_s, defaultdict(lambda: time.monotonic())
    losses: dict[str, float] = defaultdict(float)

    def is_due(what: str, every_s: float) -> bool:
        if time.monotonic() - last[what] < every_s:
            return False
        last[what] = time.monotonic()
        return True

    printed_step, printed_at = trainer.step, time.monotonic()
    while True:
        progress = torch.tensor([(time.monotonic() - started) / 60 / options.minutes])
        if options.steps:
            progress = torch.tensor([trainer.step / options.steps])
        all_reduce([progress])
        if progress >= 1:
            break
        for name, loss in trainer.update(progress.item()).items():
            losses[name] += 0.05 * (loss - losses[name]) if losses[name] else loss
        stop = torch.tensor([float(bool(is_stopped))])
        all_reduce([stop])

        if is_first and is_due("print", PRINT_S):
            rate = (trainer.step - printed_step) * options.batch_size / (time.monotonic() - printed_at)
            printed_step, printed_at = trainer.step, time.monotonic()
            numbers = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            say(f"step {trainer.step}, {100 * progress.item():.1f} %, {numbers}; {rate:,.1f} windows/s")
        if is_first and (is_due("save", SAVE_S) or stop.item()):
            torch.save(trainer.state(time.monotonic() - started), state_file.with_suffix(".part"))
            os.replace(state_file.with_suffix(".part"), state_file)
            save(trainer.average, options.output)
        if is_first and is_due("evaluate", EVALUATE_S):
            report(trainer, examiner, options, 1500, say)
        if stop.item():
            return
    if is_first:
        save(trainer.average, options.output)
        state_file.unlink(missing_ok=True)
        report(trainer, examiner, options, None, say)
    barrier()


def report(trainer: Trainer, examiner: Examiner, options: argparse.Namespace, most: int | None, say: Any) -> None:
    results = {"updates": trainer.step, "windows": trainer.step * options.batch_size}
    results |= examiner.examine(trainer.average, most)
    with open(options.output / "history.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(results) + "\n")
    say(json.dumps(results))


def barrier() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--from", dest="start", type=Path, help="model folder to start from instead of random weights")
    parser.add_argument("--minutes", type=float, default=100.0)
    parser.add_argument("--steps", type=int, help="a schedule of so many updates instead of by time")
    parser.add_argument("--processes", type=int, default=1 if torch.cuda.is_available() else 2)
    parser.add_argument("--batch-size", type=int, default=512 if torch.cuda.is_available() else 256)
    parser.add_argument("--reuse", type=float, default=1 if torch.cuda.is_available() else 4)
    parser.add_argument("--pool", type=int, default=6000, help="mixtures of each process that are kept for this")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--keep", type=float, default=0.45, help=f"share of patches heard in {ALL_TOKENS_FROM:.0%}")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3, help="at batches of 512; goes with the root")
    parser.add_argument("--muon-factor", type=float, default=2.0, help="the blocks' learning rate over the others'")
    parser.add_argument("--clip", type=float, default=10.0, help="largest norm of the gradient")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=has_compiler(), help="compile the blocks"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.update(KEEP_FREED_MEMORY)
    with tempfile.TemporaryDirectory() as folder:
        options.rendezvous = Path(folder) / "processes"
        torch.multiprocessing.spawn(train, (options,), options.processes)


if __name__ == "__main__":
    main()
