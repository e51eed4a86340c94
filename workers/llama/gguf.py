"""Loads GGUF files, and converts their weights at load where that is asked for.

The library comes as an argument: only `model` imports it.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path
from typing import Any

from workers.errors import ModelError, ModelFileError
from workers.llama.complaints import Complaints
from workers.llama.kinds import metadata, other_purpose
from workers.llama.no_model import content_without_model
from workers.llama.options import LlamaOptions, cores


def load(lib: Any, ggml: Any, options: LlamaOptions, complaints: Complaints) -> Any:
    """Load a model, with the weights that the options ask for.

    Args:
        lib: the llama_cpp module.
        ggml: its library that reads GGUF files.
        options: which file, and how.
        complaints: what the library says.

    Raises:
        ModelFileError: the file is not a sound GGUF model that continues text.
        ModelError: its weights cannot be converted.
    """
    path = options.path
    _check_file(path)
    layers = options.gpu_layers
    if layers is None:
        layers = -1 if lib.llama_supports_gpu_offload() else 0

    def read(file: Path, *, check: bool) -> Any:
        params = lib.llama_model_default_params()
        params.check_tensors = check
        params.n_gpu_layers = layers
        complaints.forget()
        model = lib.llama_model_load_from_file(os.fsencode(file), params)
        if not model:
            reason = complaints.first()
            content = content_without_model(ggml, file)
            raise ModelFileError(
                f"The model file {file} cannot be loaded ({reason})"
                + (f": it {content}." if content else ".")
            )
        return model

    model = read(path, check=options.check_tensors)
    if purpose := other_purpose(lib, model):
        error = no_generator(path, metadata(lib, model, "general.architecture"), purpose)
        lib.llama_model_free(model)
        raise error
    if options.requantize is None:
        return model
    lib.llama_model_free(model)  # it was sound; converting one that is not could end us
    with tempfile.TemporaryDirectory(prefix="llama-herder-") as folder:
        converted = Path(folder) / f"{options.requantize}.gguf"
        _convert(lib, options, converted, complaints)
        # mapped into memory, it stays there when the folder goes
        return read(converted, check=False)


def no_generator(path: Path, architecture: str, purpose: str) -> ModelFileError:
    """Say that a model does something else than to continue text."""
    return ModelFileError(
        f"The model in {path} ({architecture}) does not generate text: it {purpose}."
    )


def _convert(lib: Any, options: LlamaOptions, target: Path, complaints: Complaints) -> None:
    ftypes = {"q8_0": lib.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": lib.LLAMA_FTYPE_MOSTLY_Q4_0}
    assert options.requantize is not None
    params = lib.llama_model_quantize_default_params()
    params.ftype = ftypes[options.requantize]
    params.allow_requantize = True
    params.nthread = options.threads or cores()
    complaints.forget()
    source = os.fsencode(options.path)
    if lib.llama_model_quantize(source, os.fsencode(target), ctypes.byref(params)) != 0:
        raise ModelError(
            f"{options.path} cannot be converted to {options.requantize} ({complaints.first()})."
        )


def _check_file(path: Path) -> None:
    """Refuse early what llama.cpp would only refuse with a riddle."""
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder, not a GGUF file.")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelFileError(f"The model file {path} cannot be read ({error.strerror}).") from error
    if magic != b"GGUF":
        raise ModelFileError(f"{path} is not a GGUF file.")
