"""Speech by machines: espeak-ng in eight languages, flite with four English voices, in rooms and over telephones."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from effects import Samples, fitted, recorded

FLITE_VOICES = ("slt", "rms", "awb", "kal16")
VARIANTS = ("m1", "m2", "m3", "m4", "m7", "f1", "f2", "f3", "f4", "f5", "klatt2", "klatt4", "croak", "whisper")
SENTENCES = {
    "en-gb": (
        "The train leaves at",
        "I have not seen her since",
        "Could you tell me when",
        "They walked along the river",
        "nobody knew what to say",
        "it was a cold and quiet morning",
        "the children are playing outside",
        "and then we went home",
        "please close the door behind you",
        "what a strange idea",
    ),
    "en-us": (
        "Welcome back to the show",
        "today we are talking about",
        "the market opened higher",
        "let me give you an example",
        "she asked me twice",
        "turn left at the next corner",
        "the results were published last year",
        "thank you for calling",
    ),
    "de": (
        "Guten Morgen zusammen",
        "wir treffen uns am Bahnhof",
        "das Wetter bleibt heute freundlich",
        "ich habe lange darauf gewartet",
        "die Katze schläft auf dem Sofa",
        "morgen fahren wir ans Meer",
        "was meinst du dazu",
    ),
    "fr": (
        "Bonjour à tous",
        "nous partons demain matin",
        "il fait beau aujourd'hui",
        "je ne sais pas encore",
        "la maison est au bord du lac",
        "elle lit un livre dans le jardin",
        "merci de votre visite",
    ),
    "es": (
        "Buenos días a todos",
        "mañana salimos temprano",
        "no sé qué decir",
        "la ciudad está tranquila esta noche",
        "mi hermana vive cerca del mar",
        "vamos a empezar la clase",
    ),
    "it": (
        "Buongiorno a tutti",
        "domani andiamo in montagna",
        "non lo so ancora",
        "il treno è in ritardo",
        "la cena è pronta",
        "mi piace ascoltare la pioggia",
    ),
    "pl": (
        "Dzień dobry państwu",
        "jutro jedziemy nad morze",
        "nie wiem jeszcze",
        "w domu jest cicho",
        "dziękuję za pomoc",
    ),
    "sv": (
        "God morgon allihopa",
        "vi ses vid stationen",
        "det regnar hela dagen",
        "jag vet inte ännu",
        "tack för hjälpen",
    ),
}
LANGUAGES = tuple(SENTENCES)


def make_speech(i: int, fold: int, num_samples: int, sampling_rate: int) -> Samples:
    """Return one to three sentences by a voice of the fold's own languages and variants."""
    rng = np.random.default_rng([3, i])
    use_flite = rng.random() < 0.35
    voice = FLITE_VOICES[(i // 5 + fold) % 4] if use_flite else _espeak_voice(fold, rng)
    sentences = SENTENCES["en-gb"] + SENTENCES["en-us"] if use_flite else SENTENCES[voice.split("+")[0]]
    text = ", ".join(str(sentence) for sentence in rng.permutation(sentences)[: rng.integers(3, 6)])
    speech = _flite(text, voice, sampling_rate) if use_flite else _espeak(text, voice, rng, sampling_rate)
    return recorded(fitted(speech, num_samples, rng), sampling_rate, rng)


def make_word(i: int, fold: int, sampling_rate: int) -> Samples:
    """Return one word by such a voice, like a command to a device: at least half a second."""
    rng = np.random.default_rng([9, i])
    voice = _espeak_voice(fold, rng)
    words = sorted({word for sentence in SENTENCES[voice.split("+")[0]] for word in sentence.split() if len(word) > 2})
    speech = _espeak(str(rng.choice(words)), voice, rng, sampling_rate)
    loud = np.flatnonzero(np.abs(speech) > 0.02 * np.abs(speech).max())
    word = speech[loud[0] : loud[-1] + 1]
    num_samples = max(len(word), round(rng.uniform(0.5, 1.4) * sampling_rate))
    return recorded(fitted(word, num_samples, rng), sampling_rate, rng)


def _espeak_voice(fold: int, rng: np.random.Generator) -> str:
    """Choose a language and a variant that no other fold has."""
    return f"{rng.choice(LANGUAGES)}+{VARIANTS[fold - 1 :: 5][rng.integers(len(VARIANTS[fold - 1 :: 5]))]}"


def _espeak(text: str, voice: str, rng: np.random.Generator, sampling_rate: int) -> Samples:
    speed, pitch = str(rng.integers(120, 220)), str(rng.integers(15, 85))
    return _spoken(["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-w"], [text], sampling_rate)


def _flite(text: str, voice: str, sampling_rate: int) -> Samples:
    return _spoken(["flite", "-voice", voice, "-t", text, "-o"], [], sampling_rate)


def _spoken(command: list[str], after: list[str], sampling_rate: int) -> Samples:
    """Run a program that writes a WAV file to the path between the two parts of its command."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        subprocess.run([*command, str(file), *after], check=True, capture_output=True)
        samples, rate = soundfile.read(file, dtype="float64")
    return soxr.resample(samples, rate, sampling_rate)
