"""Write ast_cli/assets/selfcheck.safetensors: what `ast doctor` compares this machine's numbers with.

Run it when the built-in model changes: ``python tests/make_selfcheck_reference.py``. The fbank is the real torchaudio's
(tests/fixtures), the logits are the reference implementation's (transformers, float32, eager) on the built-in model.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import ASTForAudioClassification

from ast_cli import ASTFeatureExtractor
from ast_cli.hub import builtin_folder
from ast_cli.selfcheck import REFERENCE

FIXTURE = Path(__file__).parent / "fixtures" / "fbank_reference.safetensors"
CLIP = "noise_1s"


def main() -> None:
    golden = load_file(FIXTURE)
    waveform, fbank = golden[f"waveform/{CLIP}"], golden[f"kaldi_fbank/{CLIP}"]
    extractor = ASTFeatureExtractor.from_pretrained(builtin_folder())
    input_values = extractor.input_values([torch.from_numpy(fbank)])
    model = ASTForAudioClassification.from_pretrained(
        builtin_folder(), attn_implementation="eager", dtype=torch.float32
    )
    with torch.inference_mode():
        logits = model(input_values).logits[0].numpy()
    arrays = {"waveform": waveform, "fbank": fbank, "logits": np.ascontiguousarray(logits)}
    REFERENCE.unlink(missing_ok=True)
    save_file(arrays, REFERENCE, metadata={"clip": CLIP, "model": "builtin"})
    REFERENCE.chmod(0o644)  # the library makes files that only their owner may read


if __name__ == "__main__":
    main()
