"""Know the file beside files of whole tensors that says which of them holds which tensor.

``unified_safetensors`` writes one, and so does the Hub of Hugging Face. Files without it are taken
as they are; with it, a file that was not copied is missed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from workers.resharding.errors import MissingPartError, UnreadableFileError
from workers.resharding.remote.address import Location, RemoteFile
from workers.resharding.remote.store import read_text

PARAMETER_MAP = "param_name_map.json"
_ENDINGS = (PARAMETER_MAP, ".safetensors.index.json")


def is_parameter_map(path: str) -> bool:
    """Return whether a file has the name of such a map."""
    return path.endswith(_ENDINGS)


def parameter_map_text(files: Mapping[str, str], nbytes: int) -> str:
    """Return the text of a map: the name of the file of each tensor."""
    return json.dumps({"metadata": {"total_size": nbytes}, "weight_map": files}, indent=1)


def require_parts(path: Location, held: Collection[str]) -> None:
    """Refuse files that do not hold all tensors of a map.

    Args:
        held: the tensors that they hold.

    Raises:
        MissingPartError: it names the first that is missing.
        UnreadableFileError: the map cannot be read.
    """
    for name, part in _read(path).items():
        if name not in held:
            raise MissingPartError(name, part, str(path))


def _read(path: Location) -> Mapping[str, str]:
    try:
        document = json.loads(
            read_text(path.url) if isinstance(path, RemoteFile) else path.read_text("utf-8")
        )
        files = document.get("weight_map", document)  # MindSpore once wrote nothing else
        return {str(name): str(part) for name, part in files.items()}
    except OSError as error:
        raise UnreadableFileError(str(path), str(error.strerror)) from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise UnreadableFileError(str(path), f"it is no map of parameters ({error})") from error
