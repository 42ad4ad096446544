"""General MIDI's programs and drums as short phrases, played by fluidsynth, with AudioSet's label where it has one."""

from __future__ import annotations

import random
from collections.abc import Iterator

from effects import Samples
from music import DRUMS, SOUNDFONTS, play

PHRASE_S, GAP_S = 5.0, 1.0
SCALES = ((0, 2, 4, 5, 7, 9, 11, 12), (0, 2, 3, 5, 7, 8, 10, 12), (0, 3, 5, 7, 10, 12), (0, 2, 4, 7, 9, 12))
# First and last program, then the label.
PROGRAMS = (
    (0, 1, "Piano"),
    (2, 2, "Electric piano"),
    (3, 3, "Piano"),
    (4, 5, "Electric piano"),
    (6, 6, "Harpsichord"),
    (7, 7, "Electric piano"),
    (8, 9, "Glockenspiel"),
    (11, 11, "Vibraphone"),
    (12, 13, "Marimba, xylophone"),
    (14, 14, "Tubular bells"),
    (15, 15, "Zither"),
    (16, 16, "Hammond organ"),
    (17, 17, "Electronic organ"),
    (18, 18, "Hammond organ"),
    (19, 20, "Organ"),
    (21, 21, "Accordion"),
    (22, 22, "Harmonica"),
    (23, 23, "Accordion"),
    (24, 25, "Acoustic guitar"),
    (26, 28, "Electric guitar"),
    (29, 30, "Distortion"),
    (31, 31, "Electric guitar"),
    (32, 37, "Bass guitar"),
    (38, 39, "Synthesizer"),
    (40, 40, "Violin, fiddle"),
    (41, 41, "Bowed string instrument"),
    (42, 42, "Cello"),
    (43, 43, "Double bass"),
    (44, 44, "String section"),
    (45, 45, "Pizzicato"),
    (46, 46, "Harp"),
    (47, 47, "Timpani"),
    (48, 49, "String section"),
    (50, 51, "Synthesizer"),
    (52, 53, "Choir"),
    (54, 54, "Synthesizer"),
    (55, 55, "Orchestra"),
    (56, 56, "Trumpet"),
    (57, 57, "Trombone"),
    (58, 58, "Brass instrument"),
    (59, 59, "Trumpet"),
    (60, 60, "French horn"),
    (61, 61, "Brass instrument"),
    (62, 63, "Synthesizer"),
    (64, 67, "Saxophone"),
    (68, 70, "Wind instrument, woodwind instrument"),
    (71, 71, "Clarinet"),
    (72, 75, "Flute"),
    (77, 77, "Flute"),
    (79, 79, "Flute"),
    (80, 84, "Synthesizer"),
    (86, 103, "Synthesizer"),
    (104, 104, "Sitar"),
    (105, 105, "Banjo"),
    (106, 107, "Plucked string instrument"),
    (108, 108, "Mallet percussion"),
    (109, 109, "Bagpipes"),
    (110, 110, "Violin, fiddle"),
    (111, 111, "Wind instrument, woodwind instrument"),
    (112, 112, "Bell"),
    (114, 114, "Steelpan"),
    (115, 115, "Wood block"),
    (118, 118, "Drum machine"),
)
DRUM_KEYS = {
    "Bass drum": (35, 36),
    "Snare drum": (38, 40),
    "Rimshot": (37,),
    "Clapping": (39,),
    "Hi-hat": (42, 44, 46),
    "Cymbal": (49, 51, 52, 55, 57, 59),
    "Tambourine": (54,),
    "Cowbell": (56,),
    "Maraca": (70, 82),
    "Wood block": (76, 77),
    "Drum": (41, 43, 45, 47, 48, 50),
    "Percussion": (60, 61, 62, 63, 64),
    "Whistle": (71, 72),
    "Jingle bell": (83,),
}

Note = tuple[float, float, int, int, int]  # start and length in beats of a second, channel, key, velocity


def instruments(sampling_rate: int, phrases: tuple[int, int] = (5, 3)) -> Iterator[tuple[str, Samples, str]]:
    """Yield name, samples and label of so many phrases per program, with each of the two soundfonts."""
    rng = random.Random(1)
    for soundfont, number in zip(SOUNDFONTS, phrases, strict=True):
        font = soundfont.rsplit("/", 1)[1].removesuffix(".sf2")
        for first, last, label in PROGRAMS:
            for program in range(first, last + 1):
                played = phrase_of(program, 0, number, soundfont, sampling_rate, rng)
                yield from ((f"{font}/{program}/{k}", samples, label) for k, samples in enumerate(played))
        for label, keys in DRUM_KEYS.items():
            played = phrase_of(0, DRUMS, 4, soundfont, sampling_rate, rng, keys)
            yield from ((f"{font}/drum {keys[0]}/{k}", samples, label) for k, samples in enumerate(played))


def phrase_of(
    program: int,
    channel: int,
    number: int,
    soundfont: str,
    sampling_rate: int,
    rng: random.Random,
    keys: tuple[int, ...] = (),
) -> Iterator[Samples]:
    """Yield phrases of one program, or of the drums with given keys."""
    period_s = PHRASE_S + GAP_S
    notes: list[Note] = []
    for k in range(number):
        low = rng.choice((28, 36) if 32 <= program < 40 else (36, 45, 52, 60, 67))
        scale = keys or tuple(low + step for step in rng.choice(SCALES))
        notes += phrase(k * period_s, channel, scale, rng)
    samples = play(notes, [program] if channel == 0 else [], 60.0, soundfont, sampling_rate)
    for k in range(number):
        yield samples[int(k * period_s * sampling_rate) : int(((k + 1) * period_s - 0.4 * GAP_S) * sampling_rate)]


def phrase(start_s: float, channel: int, keys: tuple[int, ...], rng: random.Random) -> list[Note]:
    """Return a run, slow notes, chords or a mixture of them."""
    style = rng.choice(("run", "slow", "chords", "mixed"))
    shortest_s, longest_s = {"run": (0.1, 0.25), "slow": (0.5, 1.5), "chords": (0.4, 1.2), "mixed": (0.1, 0.9)}[style]
    notes: list[Note] = []
    time_s = 0.0
    while time_s < PHRASE_S - 0.3:
        length_s = rng.uniform(shortest_s, longest_s)
        key = rng.choice(keys)
        chord = (key, key + rng.choice((3, 4)), key + 7) if style == "chords" and channel != DRUMS else (key,)
        sounding_s = min(PHRASE_S - time_s, length_s * rng.uniform(0.6, 1.3))
        notes += [(start_s + time_s, sounding_s, channel, k, rng.randint(60, 120)) for k in chord]
        time_s += length_s
    return notes
