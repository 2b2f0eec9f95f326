"""What a file of a model's folder is, by its name and content: text or data that may travel with
the weights, or what stays behind and why (other weights, pickles, code, pictures)."""

from __future__ import annotations

import re
import zlib
from io import BytesIO

#: Data whose content is no text but which libraries read as data alone.
_DATA = (".json", ".model", ".spm", ".vocab", ".bpe", ".npy", ".npz", ".gz", ".txt", ".tiktoken")
#: Text that may be large.
_TEXTS = (".jsonl", ".yaml", ".yml", ".toml", ".md", ".csv", ".tsv", ".jinja", ".merges", ".codes")
_VERSIONED = re.compile(r"\.model\.v\d+[\w-]*$")
#: Endings of safetensors files.
SUFFIXES = (".safetensors", ".st")
_WEIGHTS = (
    *(*SUFFIXES, ".bin", ".pt", ".pth", ".ckpt", ".h5", ".hdf5", ".keras", ".msgpack"),
    *(".ot", ".onnx", ".onnx_data", ".gguf", ".ggml", ".tflite", ".pb", ".mlmodel", ".nemo"),
    *(".distcp", ".pt2", ".engine", ".tar"),
)
#: A bank's own file.
BANK_SUFFIX = ".randes"
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill")
_CODE = (
    *(".py", ".pyc", ".pyi", ".sh", ".bash", ".zsh", ".fish", ".bat", ".cmd", ".ps1", ".js"),
    *(".mjs", ".ts", ".rb", ".pl", ".lua", ".php", ".so", ".dll", ".dylib", ".exe", ".c", ".cc"),
    *(".cpp", ".cu", ".h", ".hpp", ".ipynb", ".jar", ".wasm", ".go", ".rs", ".command", ".desktop"),
)
_PICTURES = (
    *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".ico", ".svg", ".pdf", ".mp3", ".mp4"),
    *(".wav", ".flac", ".ogg", ".webm", ".zip", ".7z", ".xz", ".bz2", ".zst", ".rar", ".parquet"),
    *(".arrow", ".db", ".sqlite", ".lmdb"),
)
#: What the steps of a robot's policy know of its data (LeRobot), in small files of their own.
_STEP_STATE = re.compile(r"[\w-]+_step_\d+_\w*processor\.safetensors")
_INDEX = re.compile(r"\.index(\.[\w-]+)?\.json$")
#: State of a training run, which its trainer pickles.
TRAINING = re.compile(
    r"(training_args|optimizer\w*|scheduler\w*|scaler|sampler\w*|random_states_\d+|rng_state\w*)"
    r"\.(bin|pt|pth|pkl)"
)
#: Keys, and files that programs keep what they log in with in.
_SECRETS = re.compile(
    r"id_(rsa|dsa|ecdsa|ed25519)|token|stored_tokens|(credentials?|secrets?)(\.\w+)?"
    r"|.*\.(pem|key|ppk|p12|pfx|kdbx|env)"
)
#: Folders that trackers keep beside a model: of the machine and whoever ran it, they say much.
LOGS = frozenset({"wandb", "mlruns", "lightning_logs"})
_PY = re.compile(r"\w[\w-]*\.py")
#: Beginnings of pickles (protocols 2 to 5) and of what a system would run.
PICKLED = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_RUNS = (b"#!", b"\x7fELF", b"MZ", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe")
_LFS = b"version https://git-lfs"
_PAGE = "an HTML page, not a checkpoint (a download that failed?)"
#: Files in the place of others, by how they begin.
_OTHER_FILES = (
    (_LFS, "a Git LFS pointer, not the file (run: git lfs pull)"),
    (b"<!DOCTYPE", _PAGE),
    (b"<!doctype", _PAGE),
    (b"<html", _PAGE),
    (b"GGUF", "a GGUF file: quantised weights; give the original safetensors checkpoint"),
    (b"PK\x03\x04", "a PyTorch pickle, not safetensors (see --allow-pickle)"),
    *((magic, "a pickle, not safetensors (see --allow-pickle)") for magic in PICKLED),
)
_ARCHIVES = (b"PK\x03\x04", b"\x89HDF", b"GGUF")
#: Of a file that is no text to be sure, text alone.
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")

#: Bytes of an array's header (NumPy takes no longer one), and arrays of one ``.npz``.
_HEADER, _MOST_ARRAYS = 2**14, 1000

#: Bytes that tell a text; fewer may be anything.
_SHORTEST = 8

CODE = "code"
OTHER_WEIGHTS = "other weights"
PICKLE = "a pickle"
RUN_LOGS = "logs of a training run"


def other_file(content: bytes) -> str | None:
    """What lies in the place of weights or of their JSON, and what to do, by how it begins."""
    return next((what for magic, what in _OTHER_FILES if content.startswith(magic)), None)


def text_in_place(prefix: bytes) -> str | None:
    """The same of text, such as a model's config, whose first bytes these are; else None."""
    whole = (prefix[: len(prefix) - cut] for cut in range(4))  # a character may be cut
    if len(prefix) < _SHORTEST or not any(map(is_text, whole)):
        return None
    kind = "JSON text" if prefix.lstrip()[:1] in (b"{", b"[") else "a text"
    return f"{kind}, not weights; name the folder that it is in, or the file of weights there"


def is_step_state(name: str) -> bool:
    """Whether a file is safetensors and no weights: figures that inputs are normalised by."""
    return bool(_STEP_STATE.fullmatch(name.rpartition("/")[2]))


def is_code(name: str) -> bool:
    """Whether a file is Python source, which travels only where the user says so."""
    return bool(_PY.fullmatch(name.rpartition("/")[2]))


def kind_of_name(name: str) -> str | None:
    """Why a file of this name stays behind whatever is in it; None where its content decides."""
    file = name.rpartition("/")[2].lower()
    if TRAINING.fullmatch(file):
        return "state of a training run"
    if is_step_state(file):
        return None
    for suffixes, reason in (
        (_WEIGHTS, OTHER_WEIGHTS),
        (_PICKLES, PICKLE),
        (_CODE, CODE),
        (_PICTURES, "no text"),
        ((BANK_SUFFIX,), "a bank"),
    ):
        if file.endswith(suffixes):
            return reason
    return "an index of weight files" if _INDEX.search(file) else None


def private(name: str) -> str | None:
    """Why a file is none that its owner means to send with a model; banks of old may have it."""
    *folders, file = name.split("/")
    if not LOGS.isdisjoint(folders):
        return RUN_LOGS
    return "what may be a key or a password" if _SECRETS.fullmatch(file.lower()) else None


def kind_of_content(name: str, content: bytes) -> str | None:
    """Why a file with this content stays behind; None where it may travel.

    A name that says data (``.npy``, ``.model``) may hold any bytes but a pickle, an archive of
    weights or a program; every other name stands for text.
    """
    if content.startswith((*PICKLED, _LFS)):
        return PICKLE if content.startswith(PICKLED) else "a Git LFS pointer"
    if content.startswith(_RUNS) and not is_code(name):
        return CODE
    file = name.lower()
    if file.endswith((".npy", ".npz")):
        return PICKLE if _objects(content) else None
    if content.startswith(_ARCHIVES):
        return OTHER_WEIGHTS
    if file.endswith(_DATA) or _VERSIONED.search(file) or is_step_state(file):
        return None
    return None if is_text(content) else "no text"


def is_known_data(name: str) -> bool:
    """Whether the name alone says that a file is text or data, so that it may be large."""
    file = name.lower()
    return file.endswith((*_DATA, *_TEXTS)) or bool(_VERSIONED.search(file))


def is_text(content: bytes) -> bool:
    """Whether bytes are UTF-8 text without control characters."""
    if _CONTROLS.search(content):
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _objects(content: bytes) -> bool:
    """Whether a NumPy file holds Python objects, or no array: NumPy unpickles either."""
    if not content.startswith(b"PK\x03\x04"):
        return _of_objects(content[:_HEADER])
    import zipfile

    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) > _MOST_ARRAYS:
                return True
            return any(_of_objects(archive.open(one).read(_HEADER)) for one in members)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError):
        return True


def _of_objects(start: bytes) -> bool:
    """Whether what begins so is no array of numbers or texts."""
    from numpy.lib import format as arrays

    file = BytesIO(start)
    try:
        version = arrays.read_magic(file)
        latest = version != (1, 0)  # 3.0 has other letters in it
        read = arrays.read_array_header_2_0 if latest else arrays.read_array_header_1_0
        return bool(read(file)[2].hasobject)
    except (ValueError, RecursionError, MemoryError):
        return True
