"""Decide which JSON values a rank table may hold: texts with digits, ports, addresses, numbers."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

LARGEST = 2**32 - 1  # HCCL reads numbers into 32 bits
LARGEST_PORT = 65535


class Strict(BaseModel):
    """Part of a table. Values of another type are refused, unknown keys are ignored: HCCL does."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class RuleError(ValueError):
    """A value breaks a rule; ``args`` are what is wrong and the fix, as validation wants them."""

    def __init__(self, what: str, fix: str, hccl: str) -> None:
        super().__init__(what, fix)
        self.hccl = hccl  # HCCL's own words


def check_digits(text: str) -> str:
    """Return a text that HCCL can read as a number."""
    hccl = f"EI0014 value {text!r}, expected a non-negative integer"
    if not (text.isascii() and text.isdigit()):
        raise RuleError(f"{text!r} is not a number", "write digits in quotes", hccl)
    if len(text) > len(str(LARGEST)) or int(text) > LARGEST:
        raise RuleError(f"{text} is too large", f"at most {LARGEST}", hccl)
    return text


def check_port(text: str) -> str:
    """Return a text that names a port."""
    number = int(check_digits(text))
    if number == 0:
        hccl = "please do not use the reserved port number[0]"
        raise RuleError("port 0 is reserved", "leave the key out, or name a free port", hccl)
    if number > LARGEST_PORT:
        hccl = f"port number[{number}] exceed max port number[{LARGEST_PORT}]"
        raise RuleError(f"{number} is no port", f"write 1 to {LARGEST_PORT}", hccl)
    return text


def check_address(text: str) -> str:
    """Return a text that is an IP address, exactly as HCCL wants it: without blanks around it."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        hccl = f"EI0014 value {text} for IP, expected a valid IP address"
        fix = "the tool that made the table found none" if text == "-.-.-.-" else ""
        see = "see `hccn_tool -i N -ip -g`"
        raise RuleError(f"{text!r} is no IP address", "; ".join(filter(None, (fix, see))), hccl)
    return text


def check_addresses(text: str) -> str:
    """Return a text that is empty, or IP addresses with commas between them."""
    if text:
        for address in text.removesuffix(",").split(","):
            check_address(address)
    return text


def check_whole(value: Any) -> Any:
    """Return a value that is a JSON number without a fraction."""
    if type(value) is not int:
        quoted = isinstance(value, str) and value.isascii() and value.isdigit()
        fix = f"write {value} without quotes" if quoted else "write a whole number without quotes"
        raise RuleError(f"{value!r} is not a number", fix, "type must be number")
    return value


def within(low: int, high: int) -> Callable[[int], int]:
    """Return a check for numbers from ``low`` to ``high``, both of them allowed."""

    def check(value: int) -> int:
        if not low <= value <= high:
            hccl = f"[{value}] is out of range [{low}] to [{high}]"
            raise RuleError(f"{value} is out of range", f"write {low} to {high}", hccl)
        return value

    return check


Digits: TypeAlias = Annotated[str, AfterValidator(check_digits)]
Port: TypeAlias = Annotated[str, AfterValidator(check_port)]
Address: TypeAlias = Annotated[str, AfterValidator(check_address)]
Addresses: TypeAlias = Annotated[str, AfterValidator(check_addresses)]
ServerId: TypeAlias = Annotated[str, Field(min_length=1, max_length=64)]

Whole: TypeAlias = Annotated[int, BeforeValidator(check_whole)]
WholePort: TypeAlias = Annotated[Whole, AfterValidator(within(1, LARGEST_PORT))]
UpTo64: TypeAlias = Annotated[Whole, AfterValidator(within(0, 64))]
UpTo7: TypeAlias = Annotated[Whole, AfterValidator(within(0, 7))]
RankId: TypeAlias = Annotated[Whole, AfterValidator(within(0, 65535))]
