"""ASTFeatureExtractor accepts the reference's inputs and parameters, gives its numbers, and rejects invalid input."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tiny_models import small_config

from ast_cli.audio.feature_extractor import BatchFeature
from ast_cli.audio.front_ends.kaldi import ASTFeatureExtractor
from ast_cli.audio.front_ends.unstated import AUDIOSET_MEAN, AUDIOSET_STD
from ast_cli.audio.waveforms import as_float32
from ast_cli.errors import AstWarning, AudioError, CheckpointError, ErrorCode, UsageError
from ast_cli.hub.names import PREPROCESSOR_NAME
from ast_cli.model.transformer import ASTForAudioClassification

TESTS = Path(__file__).resolve().parents[1]
FIXTURE = TESTS / "fixtures" / "fbank_reference.safetensors"
FULL_REFERENCE = TESTS.parent.parent / "shared" / "golden" / "fbank_reference.safetensors"

INPUT_TOLERANCE = 1e-4  # 5e-4 of the fbank, divided by 2 * std = 9.1
SPEECH_COMMANDS = {"num_mel_bins": 64, "max_length": 128, "mean": -6.845978, "std": 5.5654526}
PADDED_FRAME = (0.0 - AUDIOSET_MEAN) / (2 * AUDIOSET_STD)  # +0.4670
SILENT_FRAME = (math.log(np.finfo(np.float32).eps) - AUDIOSET_MEAN) / (2 * AUDIOSET_STD)  # -1.2776
FLOAT32_TOLERANCE = 1e-6  # a few roundings of numbers near 1


def noise(num_samples: int = 4000, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def input_values(raw_speech: Any, **parameters: Any) -> NDArray[np.float32]:
    """Return input_values as an array, by default of 32 frames and 16 bins."""
    extractor = ASTFeatureExtractor(**{"max_length": 32, "num_mel_bins": 16, **parameters})
    values: NDArray[np.float32] = extractor(raw_speech, extractor.sampling_rate, return_tensors="np").input_values
    return values


# The reference's numbers


@pytest.mark.portable_roundings
@pytest.mark.parametrize(
    ("group", "parameters"), [("input_values", {}), ("input_values_64mel_128frames", SPEECH_COMMANDS)]
)
def test_input_values_equal_the_reference(group: str, parameters: dict[str, Any]) -> None:
    tensors = load_file(FIXTURE)
    names = [name.split("/")[1] for name in tensors if name.startswith(f"{group}/")]
    assert names
    for name in names:
        values = input_values(tensors[f"waveform/{name}"], **{"max_length": 1024, "num_mel_bins": 128, **parameters})[0]
        expected = np.full_like(values, tensors[f"padding/{group}/{name}"])
        expected[: len(tensors[f"{group}/{name}"])] = tensors[f"{group}/{name}"]
        np.testing.assert_allclose(values, expected, rtol=0, atol=INPUT_TOLERANCE, err_msg=name)


@pytest.mark.portable_roundings
def test_input_values_equal_the_full_reference() -> None:
    if not FULL_REFERENCE.is_file():
        pytest.skip("../shared/golden is not beside this repository")
    tensors = load_file(FULL_REFERENCE)
    for name in [name for name in tensors if name.startswith("input_values")]:
        parameters = SPEECH_COMMANDS if "64mel" in name else {"max_length": 1024, "num_mel_bins": 128}
        values = input_values(tensors[f"waveform/{name.split('/')[1]}"], **parameters)[0]
        np.testing.assert_allclose(values, tensors[name], rtol=0, atol=INPUT_TOLERANCE, err_msg=name)


MEL_WARNING = "ignore:At least one mel filter has all zero values:UserWarning"  # the reference's, of the empty filter


@pytest.mark.parity
@pytest.mark.filterwarnings(MEL_WARNING)
def test_input_values_equal_the_live_reference_where_there_is_energy() -> None:
    reference = pytest.importorskip("transformers", exc_type=ImportError).ASTFeatureExtractor()
    waveforms = [noise(20_000), noise(300_000, seed=1)]  # padded, truncated
    expected = reference(waveforms, sampling_rate=16000, return_tensors="np")["input_values"]
    values = input_values(waveforms, max_length=1024, num_mel_bins=128)
    # Without torchaudio the reference computes in double precision and NumPy, which differs in bins of rounding noise:
    # those below 1e-7 of their frame's largest energy. Here the fbank is ln(energy) = value * 2 std + mean.
    audible = values >= values.max(axis=2, keepdims=True) - np.log(1e7) / (2 * AUDIOSET_STD)
    assert audible.mean() > 0.9
    np.testing.assert_allclose(values[audible], expected[audible], rtol=0, atol=INPUT_TOLERANCE)


def test_defaults_are_those_of_the_documentation() -> None:
    assert ASTFeatureExtractor().to_dict() == {
        "padding_side": "right",
        "feature_extractor_type": "ASTFeatureExtractor",
        "feature_size": 1,
        "sampling_rate": 16000,
        "num_mel_bins": 128,
        "max_length": 1024,
        "padding_value": 0.0,
        "do_normalize": True,
        "mean": -4.2677393,
        "std": 4.5689974,
        "return_attention_mask": False,
    }


# Accepted input


ONE = noise()
TWO = [noise(), noise(seed=1)]


@pytest.mark.parametrize(
    "one",
    [
        ONE.tolist(),
        tuple(ONE.tolist()),
        ONE.astype(np.float64),
        torch.from_numpy(ONE),
        torch.from_numpy(ONE).double().requires_grad_(),
        ONE[None],
        [ONE],
        np.repeat(ONE, 2)[::2],
        np.frombuffer(ONE.tobytes(), np.float32),
    ],
    ids=["list", "tuple", "double", "tensor", "tensor with gradient", "2-D", "list of one", "strided", "read-only"],
)
def test_every_form_of_one_waveform_gives_the_same(one: Any) -> None:
    values = input_values(one)
    assert values.shape == (1, 32, 16)
    np.testing.assert_array_equal(values, input_values(ONE))


@pytest.mark.parametrize(
    "two",
    [
        np.stack(TWO),
        [TWO[0].tolist(), TWO[1].tolist()],
        [torch.from_numpy(TWO[0]), TWO[1]],
        torch.from_numpy(np.stack(TWO)),
        tuple(TWO),
    ],
    ids=["2-D", "list of lists", "tensor and array", "2-D tensor", "tuple"],
)
def test_every_form_of_a_batch_gives_the_same(two: Any) -> None:
    values = input_values(two)
    assert values.shape == (2, 32, 16)
    np.testing.assert_array_equal(values, input_values(TWO))


def test_batch_equals_single_for_unequal_lengths() -> None:
    batch = [noise(size, seed=size) for size in (400, 560, 4000, 5520, 9000)]
    single = np.concatenate([input_values(waveform) for waveform in batch])
    np.testing.assert_allclose(input_values(batch), single, rtol=0, atol=FLOAT32_TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tensors_are_accepted_without_scaling(dtype: torch.dtype) -> None:
    half = torch.from_numpy(ONE).to(dtype)
    np.testing.assert_array_equal(input_values(half), input_values(half.float()))


INTEGERS = [(np.int8, 2.0**7, 0), (np.int16, 2.0**15, 0), (np.int32, 2.0**31, 0), (np.uint8, 2.0**7, 128)]


@pytest.mark.parametrize(("dtype", "scale", "zero"), INTEGERS)
@pytest.mark.parametrize("of", [np.asarray, torch.from_numpy])
def test_integers_are_scaled_by_their_type(dtype: Any, scale: float, zero: int, of: Any) -> None:
    steps = np.round(ONE.astype(np.float64) * scale)
    integers, floats = (steps + zero).astype(dtype), (steps / scale).astype(np.float32)
    np.testing.assert_array_equal(as_float32(of(integers)), floats)
    np.testing.assert_array_equal(input_values(of(integers)), input_values(floats))


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.uint32, np.complex64, np.bool_])
def test_types_without_a_known_scale_are_refused(dtype: Any) -> None:
    with pytest.raises(UsageError, match=f"samples of type {np.dtype(dtype)} have no known scale: convert them"):
        input_values(np.ones(1000, dtype))


# Output


def test_without_return_tensors_it_gives_a_list_of_arrays() -> None:
    values = ASTFeatureExtractor(max_length=32)(TWO, 16000)["input_values"]
    assert [(type(value), value.shape, value.dtype) for value in values] == [(np.ndarray, (32, 128), np.float32)] * 2


def test_return_tensors_changes_the_type_but_not_the_values() -> None:
    extractor = ASTFeatureExtractor(max_length=32)
    tensor = extractor(ONE, 16000, return_tensors="pt").input_values
    array = extractor(ONE, 16000, return_tensors="np").input_values
    assert isinstance(tensor, torch.Tensor)
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(tensor.numpy(), array)
    np.testing.assert_array_equal(np.stack(extractor(ONE, 16000).input_values), array)


def test_other_return_tensors_are_refused() -> None:
    with pytest.raises(UsageError, match="return_tensors must be 'pt', 'np' or None, not 'tf'"):
        ASTFeatureExtractor()(ONE, 16000, return_tensors="tf")  # type: ignore[arg-type]


def test_the_result_goes_straight_into_the_model() -> None:
    config = small_config(max_length=32, num_mel_bins=16, num_labels=2)
    torch.manual_seed(0)
    model = ASTForAudioClassification(config).eval()
    inputs = ASTFeatureExtractor(max_length=32, num_mel_bins=16)(TWO, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
        assert torch.equal(logits, model(inputs["input_values"]).logits)
    assert logits.shape == (2, 2)


def test_the_result_moves_and_casts_its_tensors() -> None:
    features = ASTFeatureExtractor(max_length=32)(ONE, 16000, return_tensors="pt")
    cast = features.to(torch.float64)
    assert isinstance(cast, BatchFeature)
    assert torch.equal(cast.input_values, features.input_values.double())


def test_attention_mask_marks_the_frames_of_the_recording() -> None:
    extractor = ASTFeatureExtractor(max_length=32, return_attention_mask=True)
    features = extractor([noise(400), noise(559), noise(2000), noise(9000)], 16000, return_tensors="np")
    expected = [[1] * frames + [0] * (32 - frames) for frames in (1, 1, 11, 32)]
    assert features["attention_mask"].tolist() == expected
    assert features["attention_mask"].dtype == np.int64
    assert "attention_mask" not in ASTFeatureExtractor(max_length=32)(ONE, 16000)


def test_padding_and_silence_are_different_inputs() -> None:
    values = input_values(np.zeros(720, np.float32))[0]  # three silent frames
    expected = np.full((32, 16), PADDED_FRAME)
    expected[:3] = SILENT_FRAME
    np.testing.assert_allclose(values, expected, rtol=0, atol=FLOAT32_TOLERANCE)
    assert (round(PADDED_FRAME, 4), round(SILENT_FRAME, 4)) == (0.4670, -1.2776)


def test_padding_value_fills_before_the_normalization() -> None:
    values = input_values(noise(400), padding_value=-3.0, mean=1.0, std=2.0)[0]
    np.testing.assert_array_equal(values[1:], np.full((31, 16), (-3.0 - 1.0) / 4.0, np.float32))


def test_do_normalize_false_leaves_the_energies() -> None:
    plain = input_values(ONE, do_normalize=False, mean=-3.0, std=2.5)
    normalized = input_values(ONE, mean=-3.0, std=2.5)
    np.testing.assert_allclose(normalized, (plain + 3.0) / 5.0, rtol=0, atol=FLOAT32_TOLERANCE)
    np.testing.assert_array_equal(plain[0, 23:], np.zeros((9, 16), np.float32))  # 4000 samples are 23 frames


def test_long_waveforms_are_truncated_to_the_first_frames() -> None:
    long = noise(20_000)
    np.testing.assert_array_equal(input_values(long), input_values(long[: 400 + 31 * 160]))


@pytest.mark.parametrize("num_samples", [1, 160, 399])
def test_an_array_shorter_than_a_frame_is_refused(num_samples: int) -> None:
    for waveforms in (noise(num_samples), [noise(8000), noise(num_samples)]):
        with pytest.raises(UsageError) as refused:
            input_values(waveforms)
        assert str(refused.value) == (
            f"a waveform of {num_samples} samples is shorter than one frame, 25 ms or 400 samples at 16000 Hz: "
            "pass a whole recording, shape (num_samples,)"
        )
    assert input_values(noise(400)).shape[0] == 1


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (np.zeros((2, 8000), np.float32), "mix its channels down with waveform.mean(axis=0)"),
        (np.zeros((8000, 2), np.float32), "mix its channels down with waveform.mean(axis=1)"),
        (torch.zeros(8000, 6), "mix its channels down with waveform.mean(axis=1)"),
        (np.zeros((8000, 2), np.int16), "mix its channels down with (waveform / 32768).mean(axis=1)"),
        (np.zeros((1, 2, 8000), np.float32), "select one recording, such as waveform[0], and mix its channels down"),
        (np.float32(0.5), "a single number is not a recording"),
    ],
)
def test_the_error_for_an_array_of_another_shape_names_the_axis_of_the_channels(array: object, advice: str) -> None:
    with pytest.raises(UsageError, match="a waveform must be mono, shape") as refused:
        as_float32(array)  # type: ignore[arg-type]
    assert advice in str(refused.value)


def test_interleaved_channels_are_not_taken_for_a_batch() -> None:
    with pytest.raises(UsageError) as refused:
        input_values(np.zeros((8000, 2), np.float32))
    assert str(refused.value) == (
        "an array of shape (8000, 2) is a batch of 8000 waveforms of 2 samples each; "
        "if it is one recording, mix its channels down with waveform.mean(axis=1)"
    )


def test_floats_in_the_range_of_integers_give_a_warning() -> None:
    for loudest in (1.0, 9.9):  # a little beyond full scale is common in floating point
        input_values(noise(8000) / np.abs(noise(8000)).max() * np.float32(loudest))
    samples = np.full(8000, 0.25, np.float32) * 32767
    with pytest.warns(AstWarning) as warned:
        input_values(samples)
    assert str(warned[0].message) == (
        "the waveform's peak is 8191.75, 8192 times full scale (1), so its features will be wrong; "
        "divide 16-bit samples by 32768, or pass the int16 array unchanged"
    )
    input_values((samples).astype(np.int16))


def test_another_sampling_rate_has_frames_of_25_ms() -> None:
    values = input_values(noise(8000), sampling_rate=8000, do_normalize=False, max_length=98)[0]
    assert (values != 0).all()  # exactly 98 frames: 1 + (8000 - 200) // 80


# Refused input


def test_a_wrong_sampling_rate_is_refused() -> None:
    with pytest.raises(UsageError) as raised:
        ASTFeatureExtractor()(ONE, sampling_rate=44100)
    assert str(raised.value) == (
        "this feature extractor takes waveforms at 16000 Hz, not 44100 Hz: "
        "resample them first (ast_cli.load_waveform does)"
    )


def test_a_missing_sampling_rate_gives_a_warning() -> None:
    with pytest.warns(UserWarning, match="pass sampling_rate to ASTFeatureExtractor") as caught:
        without = ASTFeatureExtractor(max_length=32)(ONE)
    assert caught[0].filename == __file__  # the caller's line
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_rate = ASTFeatureExtractor(max_length=32)(ONE, 16000)
    np.testing.assert_array_equal(without["input_values"], with_rate["input_values"])


@pytest.mark.parametrize(
    "empty", [[], np.zeros(0), np.zeros((2, 0)), np.zeros((0, 100)), torch.zeros(0), [np.ones(500), []], [[]]]
)
def test_waveforms_without_samples_are_refused(empty: Any) -> None:
    with pytest.raises(AudioError, match="contains no") as raised:
        input_values(empty)
    assert raised.value.code is ErrorCode.NO_SAMPLES


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("form", [list, np.asarray, torch.tensor])
def test_samples_that_are_not_finite_are_refused(bad: float, form: Any) -> None:
    waveform = [0.1] * 1000
    waveform[500] = bad
    with pytest.raises(AudioError, match="NaN or infinite samples: replace them by 0 first") as raised:
        input_values(form(waveform))
    assert raised.value.code is ErrorCode.NON_FINITE


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy])
def test_three_dimensions_are_refused(form: Any) -> None:
    with pytest.raises(UsageError, match="one dimension and a batch two, but this array has 3"):
        input_values(form(np.zeros((1, 2, 1000))))


def test_stereo_in_a_list_is_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError, match=r"must be mono, .*waveform\.mean\(axis=0\)"):
        input_values([np.zeros((2, 1000))])


@pytest.mark.parametrize("form", [list, np.asarray])
def test_integers_of_unknown_scale_are_refused_and_a_list_of_zeros_and_ones_is_not(form: Any) -> None:
    with pytest.raises(UsageError, match="samples of type int64 have no known scale"):
        input_values(form([1000, -1000] * 500))
    np.testing.assert_array_equal(as_float32([0, 1, -1]), np.array([0, 1, -1], np.float32))


@pytest.mark.parametrize("odd", ["a.wav", [["a", "b"]], None, {}, 0.5, [None, None], [[0.1, [0.2]]], b"RIFF"])
def test_input_that_is_not_a_waveform_is_refused(odd: Any) -> None:
    with pytest.raises(UsageError):
        input_values(odd)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("std", 0, "std must be above 0, not 0"),
        ("std", -1.0, "std must be above 0, not -1.0"),
        ("std", math.nan, "std must be a finite number, not nan"),
        ("std", "4.5", "std must be a finite number, not '4.5'"),
        ("std", None, "std must be a finite number, not None"),
        ("mean", math.inf, "mean must be a finite number, not inf"),
        ("padding_value", True, "padding_value must be a finite number, not True"),
        ("feature_size", 2, "feature_size must be 1, a mono waveform, not 2"),
        ("max_length", 0, "max_length must be from 1 to 100000 frames, not 0"),
        ("max_length", 10**9, "max_length must be from 1 to 100000 frames, not 1000000000"),
        ("max_length", 1024.0, "max_length must be from 1 to 100000 frames, not 1024.0"),
        ("num_mel_bins", 3, "num_mel_bins must be from 4 to 1024, not 3"),
        ("num_mel_bins", "128", "num_mel_bins must be from 4 to 1024, not '128'"),
        ("sampling_rate", 0, "sampling_rate must be from 1000 to 768000 Hz, not 0"),
        ("sampling_rate", None, "sampling_rate must be from 1000 to 768000 Hz, not None"),
        ("sampling_rate", 16000.5, "sampling_rate must be from 1000 to 768000 Hz, not 16000.5"),
        ("fbank_backend", "kaldi", "fbank_backend must be one of native, numpy, torchaudio, not 'kaldi'"),
    ],
)
def test_invalid_parameters_are_refused(parameter: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        ASTFeatureExtractor(**{parameter: value})
    assert str(raised.value) == message


# preprocessor_config.json


def test_saving_and_loading_keeps_unknown_keys(tmp_path: Path) -> None:
    written = ASTFeatureExtractor(max_length=512, mean=-5.5, std=3.25, trained_on="field recordings")
    written.save_pretrained(tmp_path / "new" / "folder")
    content = json.loads((tmp_path / "new" / "folder" / PREPROCESSOR_NAME).read_text(encoding="utf-8"))
    assert content == written.to_dict()
    assert content["trained_on"] == "field recordings"
    assert ASTFeatureExtractor.from_pretrained(tmp_path / "new" / "folder").to_dict() == content


def test_missing_keys_get_audiosets_values_and_overrides_take_precedence(tmp_path: Path) -> None:
    text = '{"max_length": 512, "mean": -1.0, "feature_extractor_type": null}'
    (tmp_path / PREPROCESSOR_NAME).write_text(text, encoding="utf-8")
    expected = ASTFeatureExtractor(max_length=128, mean=-1.0).to_dict()
    assert ASTFeatureExtractor.from_pretrained(tmp_path, max_length=128).to_dict() == expected


@pytest.mark.parity
@pytest.mark.filterwarnings(MEL_WARNING)
def test_the_reference_reads_saved_folders_and_its_folders_are_read(tmp_path: Path) -> None:
    reference = pytest.importorskip("transformers", exc_type=ImportError).ASTFeatureExtractor
    ASTFeatureExtractor(max_length=64, std=3.0).save_pretrained(tmp_path / "ours")
    theirs = reference.from_pretrained(tmp_path / "ours")
    assert (theirs.max_length, theirs.std, theirs.sampling_rate) == (64, 3.0, 16000)
    theirs.save_pretrained(tmp_path / "theirs")
    values = input_values(ONE, **json.loads((tmp_path / "theirs" / PREPROCESSOR_NAME).read_text()))
    np.testing.assert_array_equal(values, input_values(ONE, max_length=64, std=3.0, num_mel_bins=128))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"feature_extractor_type": "ClapFeatureExtractor"}',
            "json: needs another front end, 'Clap",
        ),
        ('{"std": 0}', "std must be above 0"),
        ('{"std": NaN}', "std must be a finite number|NaN"),
        ('{"std": null}', "std must be a finite number"),
        ('{"sampling_rate": "16k"}', "sampling_rate must be from 1000 to 768000 Hz, not '16k'"),
        ('{"num_mel_bins": null}', "num_mel_bins must be from 4 to 1024, not None"),
        ("[1]", PREPROCESSOR_NAME),
        ("{", PREPROCESSOR_NAME),
    ],
)
def test_an_invalid_preprocessor_config_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / PREPROCESSOR_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        ASTFeatureExtractor.from_pretrained(tmp_path)
