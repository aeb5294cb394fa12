"""Keep a process alive when a mapped file shrinks under it: no SIGBUS, but a fact to check.

The kernel sends SIGBUS for a page that a mapped file no longer has. Here a handler puts empty
memory in the place of the lost pages, so that the copy goes on, and notes that it did; whoever
copies looks at the note before he trusts the bytes.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SA_SIGINFO, _SA_NODEFER = 4, 0x40000000
_ADDRESS_IN_SIGINFO = 16  # bytes; of si_addr on 64-bit Linux
_MAP_FIXED = 0x10
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _SignalAction(ctypes.Structure):  # struct sigaction of glibc and musl on 64-bit Linux
    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]


@dataclass
class Mapping:
    """A mapped file, and whether pages of it were lost."""

    address: int
    nbytes: int
    torn: bool = False


_guarded: tuple[Mapping, ...] = ()  # never changed in place: the handler may be looking at it
_changing = threading.Lock()
_previous = _SignalAction()


@contextmanager
def guarded(address: int, nbytes: int) -> Iterator[Mapping]:
    """Survive lost pages of the mapping at ``address`` until the block ends."""
    global _guarded
    mapping = Mapping(address, nbytes)
    with _changing:
        if not _guarded:
            _install()
        _guarded += (mapping,)
    try:
        yield mapping
    finally:
        with _changing:
            _guarded = tuple(other for other in _guarded if other is not mapping)
            if not _guarded:
                _libc.sigaction(signal.SIGBUS, ctypes.byref(_previous), None)


def _install() -> None:
    action = _SignalAction()
    action.handler = ctypes.cast(_handler, ctypes.c_void_p)
    action.flags = _SA_SIGINFO | _SA_NODEFER
    _libc.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(_previous))


def _on_lost_page(_signal: int, info: int, _context: int) -> None:
    """Replace the rest of the mapping; the instruction that failed is then tried again.

    It runs in the middle of a memory copy, which holds no lock: Python code is safe here.
    """
    fault = ctypes.c_void_p.from_address(info + _ADDRESS_IN_SIGINFO).value or 0
    for mapping in _guarded:
        end = mapping.address + mapping.nbytes
        if mapping.address <= fault < end:
            mapping.torn = True
            page = fault - fault % mmap.PAGESIZE
            protection, flags = mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
            if _libc.mmap(page, end - page, protection, flags, -1, 0) == page:
                return
    _libc.sigaction(signal.SIGBUS, ctypes.byref(_previous), None)  # none of ours: as before


_handler = _HANDLER(_on_lost_page)  # kept: the kernel calls it by its address
