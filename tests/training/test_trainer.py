from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import plain_options, tiny_clips, tiny_trainer, weights_of

from ast_cli.errors import AstError, DeviceError
from ast_cli.training.options import TrainOptions
from ast_cli.training.trainer import Report, Trainer, kept_weights

EVERYTHING: dict[str, Any] = {
    "mixup": 0.5,
    "token_drop": 0.25,
    "time_mask": 8,
    "frequency_mask": 4,
    "noise": 0.2,
    "gain_db": 3.0,
    "time_shift": 9,
    "random_crop": True,
    "warmup_steps": 2,
    "label_smoothing": 0.1,
}


def finished(options: TrainOptions, folder: Path, **changes: Any) -> Trainer:
    trainer = tiny_trainer(options, folder, **changes)
    trainer.run()
    return trainer


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def interrupt_after(num_updates: int) -> Any:
    """Return a callback that sends SIGINT to the process after ``num_updates`` updates."""
    seen: list[Report] = []

    def on_report(report: Report) -> None:
        seen.extend([report] if report.row is None else [])
        if report.row is None and len(seen) == num_updates:
            os.kill(os.getpid(), signal.SIGINT)

    return on_report


def resumed_at_every(num_updates: int, options: TrainOptions, folder: Path, **changes: Any) -> Trainer:
    """Run with an interruption after every ``num_updates`` updates, and a new trainer after each."""
    for _ in range(1000):
        trainer = tiny_trainer(options, folder, **changes)
        trainer.resume()
        try:
            trainer.run(interrupt_after(num_updates))
        except KeyboardInterrupt:
            continue
        return trainer
    raise AssertionError("does not come to an end")


@pytest.mark.parametrize(
    "changes",
    [
        {**EVERYTHING, "average": "ema", "keep": "auto"},
        {**EVERYTHING, "average": "epochs", "keep": "average", "balanced": True, "schedule": "step", "step_start": 1},
        {"keep": "best", "gradient_accumulation": 2, "batch_size": 2, "validate_every": 2},
        {"keep": "last", "patience": 1, "epochs": 9, "batch_size": 6, "hidden_dropout_prob": 0.3},
        {"optimizer": "muon", "muon_factor": 3.0, "weight_decay": 0.1},
    ],
    ids=["moving average", "mean over epochs", "best, accumulated", "last, with dropout", "muon"],
)
def test_an_interrupted_run_ends_with_identical_weights(tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = {"epochs": 2, **changes}
    model = {"hidden_dropout_prob": changes.pop("hidden_dropout_prob", 0.0)}
    options = plain_options(**changes)
    whole = finished(options, tmp_path / "whole", **model)
    parts = resumed_at_every(1, options, tmp_path / "parts", **model)
    assert_same(weights_of(parts), weights_of(whole))
    first, second = whole.progress.history, parts.progress.history
    assert [{**row, "seconds": 0} for row in first] == [{**row, "seconds": 0} for row in second]
    assert all(row["seconds"] > 0 for row in second)


def test_an_interruption_between_accumulated_batches_loses_only_these(tmp_path: Path) -> None:
    options = plain_options(gradient_accumulation=3, batch_size=1)
    trainer = tiny_trainer(options, tmp_path / "parts")
    calls = 0
    plain_loss = trainer._loss

    def loss(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:  # the second of the second update's three
            os.kill(os.getpid(), signal.SIGINT)
        return plain_loss(*arguments)

    trainer._loss = loss  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert (trainer.progress.epoch, trainer.progress.update, calls) == (0, 1, 5)
    parts = resumed_at_every(99, options, tmp_path / "parts")
    assert_same(weights_of(parts), weights_of(finished(options, tmp_path / "whole")))


def test_accumulated_gradients_equal_those_of_the_large_batch(tmp_path: Path) -> None:
    clips = tiny_clips(22)  # the last update has fewer clips, and its last batch fewer still
    large = finished(plain_options(batch_size=8), tmp_path / "a", clips=clips)
    small = finished(plain_options(batch_size=2, gradient_accumulation=4), tmp_path / "b", clips=clips)
    found = weights_of(small)
    for name, tensor in weights_of(large).items():
        if name.endswith("qkv.bias"):  # the keys' have no gradient but rounding noise, which AdamW makes large
            tensor[16:32] = found[name][16:32] = 0
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=0, msg=name)
    for first, second in zip(large.progress.history, small.progress.history, strict=True):
        assert first["train_loss"] == pytest.approx(second["train_loss"], abs=1e-5)
    assert large.num_updates == small.num_updates == 3


def test_checkpointed_gradients_give_the_same_weights(tmp_path: Path) -> None:
    plain = finished(plain_options(token_drop=0.5), tmp_path / "a")
    checkpointed = finished(plain_options(token_drop=0.5, checkpoint_gradients=True), tmp_path / "b")
    for name, tensor in weights_of(plain).items():
        torch.testing.assert_close(weights_of(checkpointed)[name], tensor, atol=1e-5, rtol=0, msg=name)


def test_one_update_equals_a_plain_torch_loop(tmp_path: Path) -> None:
    """One epoch of one batch equals the same update written with torch alone."""
    options = plain_options(epochs=1, batch_size=12, schedule="constant", weight_decay=0.01, max_gradient_norm=0.1)
    trained = finished(options, tmp_path)
    plain = tiny_trainer(options, tmp_path / "other")
    model, clips, extractor = plain.model.train(), plain.task.clips, plain.task.extractor
    inputs = extractor.input_values([torch.from_numpy(fbank) for fbank in clips.fbanks])
    loss = torch.nn.functional.cross_entropy(model(inputs).logits, torch.from_numpy(clips.targets))
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    assert norm > 0.1  # so that it counts
    for group in plain.optimizer.param_groups:
        group["lr"] = 1e-3
    plain.optimizer.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(weights_of(trained)[name], tensor, atol=1e-4, rtol=0, msg=name)
    assert trained.progress.history[0]["train_loss"] == pytest.approx(loss.item(), abs=1e-5)


def test_training_fits_separable_data(tmp_path: Path) -> None:
    trainer = finished(plain_options(epochs=15, learning_rate=5e-3), tmp_path)
    history = trainer.progress.history
    assert history[-1]["train_loss"] < 0.3 * history[0]["train_loss"]
    assert history[-1]["validation_metric"] == 1.0
    assert [row["epoch"] for row in history] == list(range(1, 16))
    assert [row["update"] for row in history] == list(range(3, 48, 3))


def test_the_best_weights_are_kept_and_patience_ends_training(tmp_path: Path) -> None:
    options = plain_options(epochs=40, learning_rate=5e-3, keep="best", patience=3)
    trainer = finished(options, tmp_path)
    history = trainer.progress.history
    metrics = [row["validation_metric"] for row in history]
    best = int(np.argmax(metrics))  # the first of equal ones
    assert len(history) == best + 1 + 3 < 40
    again = finished(plain_options(epochs=40, learning_rate=5e-3, patience=3), tmp_path / "other")
    assert [row["train_loss"] for row in again.progress.history] == [row["train_loss"] for row in history]
    until_best = tiny_trainer(plain_options(epochs=40, learning_rate=5e-3), tmp_path / "third")
    stop = interrupt_after((best + 1) * until_best.num_updates)
    with pytest.raises(KeyboardInterrupt):
        until_best.run(stop)
    assert until_best.progress.epoch == best + 1
    assert_same(weights_of(trainer), {n: t.clone() for n, t in until_best.model.state_dict().items()})


@pytest.mark.parametrize(
    ("changes", "has_validation", "kept"),
    [
        ({"keep": "auto"}, True, "best"),
        ({"keep": "auto"}, False, "last"),
        ({"keep": "auto", "average": "ema"}, True, "average"),
        ({"keep": "best", "average": "ema"}, True, "best"),
        ({"keep": "last", "average": "epochs"}, True, "last"),
    ],
)
def test_which_weights_are_kept(changes: dict[str, Any], has_validation: bool, kept: str) -> None:
    assert kept_weights(plain_options(**changes), has_validation=has_validation) == kept


def test_a_nan_loss_ends_the_run_with_advice(tmp_path: Path) -> None:
    with pytest.raises(AstError, match=r"became NaN or infinite in epoch 1, update \d: try a lower --learning-rate"):
        finished(
            plain_options(learning_rate=10.0, max_gradient_norm=0.0, schedule="constant", gain_db=0.0, noise=10.0),
            tmp_path,
            clips=broken_clips(),
        )


def broken_clips() -> Any:
    clips = tiny_clips()
    clips.fbanks[3][0, 0] = np.nan
    return clips


def test_too_little_memory_ends_the_run_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer(plain_options(), tmp_path)

    def no_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "_loss", no_memory)
    with pytest.raises(
        DeviceError, match="out of memory with --batch-size 4: halve it and double --gradient-accumulation"
    ):
        trainer.run()


def test_a_run_does_not_resume_with_other_clips(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tiny_trainer(plain_options(), tmp_path).run(interrupt_after(1))
    with pytest.raises(AstError, match="other clips can be read now"):
        tiny_trainer(plain_options(), tmp_path, clips=tiny_clips(11)).resume()


def test_a_stopped_run_raises_even_if_the_signal_handler_returns(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, lambda *_: None)  # a handler that lets the program continue
    try:
        with pytest.raises(KeyboardInterrupt):
            tiny_trainer(plain_options(), tmp_path).run(interrupt_after(1))
    finally:
        signal.signal(signal.SIGINT, before)


def test_resume_returns_false_without_a_saved_state(tmp_path: Path) -> None:
    assert not tiny_trainer(plain_options(), tmp_path).resume()


def test_reports_state_epoch_update_loss_and_time_left(tmp_path: Path) -> None:
    reports: list[Report] = []
    tiny_trainer(plain_options(epochs=2), tmp_path).run(reports.append)
    assert [(each.epoch, each.update, each.row is not None) for each in reports] == [
        (1, 1, False), (1, 2, False), (1, 3, False), (1, 3, True),
        (2, 1, False), (2, 2, False), (2, 3, False), (2, 3, True),
    ]  # fmt: skip
    assert all(each.clips_per_s > 0 for each in reports)
    assert reports[-1].left_s == 0
    assert reports[3].left_s == pytest.approx(12 / reports[3].clips_per_s)
    assert reports[1].left_s == pytest.approx((4 + 12) / reports[1].clips_per_s)
    assert reports[2].loss == reports[3].loss
    assert [each.is_last for each in reports] == [False] * 7 + [True]


def test_reports_mark_each_new_best_validation_and_the_end_of_a_run_that_stops_early(tmp_path: Path) -> None:
    reports: list[Report] = []
    tiny_trainer(plain_options(epochs=40, learning_rate=5e-3, patience=3), tmp_path).run(reports.append)
    ends = [each for each in reports if each.row is not None]
    metrics = [each.row["validation_metric"] for each in ends if each.row is not None]
    assert [each.is_best for each in ends] == [
        metric > max(metrics[:i], default=-1) for i, metric in enumerate(metrics)
    ]
    assert [each.is_last for each in ends] == [False] * (len(ends) - 1) + [True]
    assert (len(ends) < 40, ends[-1].left_s) == (True, 0)


def test_training_does_not_change_the_global_random_state(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    finished(plain_options(epochs=1), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_trains(tmp_path: Path) -> None:
    trainer = tiny_trainer(plain_options(epochs=10, learning_rate=5e-3), tmp_path)
    object.__setattr__(trainer.task, "autocast", torch.bfloat16)
    trainer.run()
    history = trainer.progress.history
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
