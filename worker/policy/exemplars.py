"""Images that a category is told by, beside its sentences: named in the policy's file, their embeddings in the policy.

In: `FILE.npz#NAME` and whoever knows what is there; or embeddings that were carried. Out: `Exemplars`, whole. Never an
image, and never an embedding that is not a unit vector.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo, model_validator

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Where an exemplar is: a file beside the policy's, and a name in it.
REF_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\.npz#[^\x00-\x1f\x7f]{1,500}$"
#: What a finder of exemplars is called in pydantic's validation context.
FINDER = "exemplar_finder"
#: More numbers than any checkpoint's embedding has, and more views of one image than an author can mean.
MAX_DIM, MAX_VIEWS = 16_384, 64
#: What `strength` is where a policy says nothing: above the thresholds that policies usually have.
DEFAULT_STRENGTH = 0.98
#: How far a row may be from unit length: it was float32 when it was written.
_UNIT_TOLERANCE = 1e-3

Kind = Literal["match", "unlike"]
KINDS: tuple[Kind, ...] = ("match", "unlike")
Ref = Annotated[str, StringConstraints(pattern=REF_PATTERN)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _as_written(schema: dict[str, Any]) -> None:
    """Say in the JSON Schema what stands in a file: where the embedding is."""
    schema.clear()
    schema |= {"type": "string", "pattern": REF_PATTERN, "description": "FILE.npz#NAME, the file beside this one."}


class Exemplar(_Strict):
    """One image: where its embedding lies, which model made it, and the embedding itself."""

    model_config = ConfigDict(json_schema_extra=_as_written)

    ref: Ref
    #: `id@revision`.
    model: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    #: Numbers of one view's embedding.
    dim: Annotated[int, Field(ge=1, le=MAX_DIM)]
    #: Base64 of `(views, dim)` little-endian float32, unit rows.
    embeddings: str

    @model_validator(mode="before")
    @classmethod
    def _found(cls, value: Any, info: ValidationInfo) -> Any:
        """Take what a file names from whoever knows what is there; what is carried is whole."""
        find: Finder | None = (info.context or {}).get(FINDER)
        if isinstance(value, Exemplar) or (isinstance(value, dict) and find is None):
            return value
        if not isinstance(value, str):
            raise ValueError("should be FILE.npz#NAME in quotes, the file beside this one")  # noqa: TRY004 - pydantic's
        return (find or nowhere)(value).model_dump()

    @model_validator(mode="after")
    def _is_sound(self) -> Exemplar:
        try:
            data = base64.b64decode(self.embeddings, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"{self.ref} does not carry base64; publish the version again") from error
        if not 0 < len(data) <= MAX_VIEWS * self.dim * 4 or len(data) % (self.dim * 4):
            raise ValueError(f"{self.ref} should hold 1 to {MAX_VIEWS} views of {self.dim} numbers; record it again")
        # Written so that what is no number is no unit vector.
        lengths = [math.hypot(*row) for row in struct.iter_unpack(f"<{self.dim}f", data)]
        if not all(abs(length - 1) <= _UNIT_TOLERANCE for length in lengths):
            raise ValueError(f"{self.ref} does not hold unit vectors; record it again")
        return self

    @classmethod
    def of(cls, ref: str, model: str, rows: npt.NDArray[np.float32]) -> Exemplar:
        """Return an exemplar of embeddings.

        Args:
            ref: Where they lie.
            model: `id@revision` of what made them.
            rows: `(views, dim)` float32, unit rows.

        Raises:
            ValueError: They are no such thing.
        """
        data = base64.b64encode(rows.astype("<f4").tobytes()).decode()
        return _made({"ref": ref, "model": model, "dim": rows.shape[1], "embeddings": data})

    @property
    def name(self) -> str:
        """What the image is called."""
        return self.ref.partition("#")[2]

    @property
    def digest(self) -> str:
        """The first digits of the SHA-256 of the embeddings and their model, for people."""
        return hashlib.sha256(f"{self.model} {self.dim} {self.embeddings}".encode()).hexdigest()[:12]

    def rows(self) -> npt.NDArray[np.float32]:
        """Return the embeddings, `(views, dim)`, unit rows."""
        import numpy as np  # noqa: PLC0415 - most policies name none

        data = np.frombuffer(base64.b64decode(self.embeddings), "<f4")
        return data.reshape(-1, self.dim).astype(np.float32)


#: What a file names → the exemplar; a `ValueError` says why there is none.
Finder = Callable[[str], Exemplar]
Pool = Annotated[tuple[Exemplar, ...], Field(max_length=500, strict=False)]


class Exemplars(_Strict):
    """The images that a category is told by; they count for the model that embedded them, and for no other."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [kind], "properties": {kind: {"minItems": 1}}} for kind in KINDS]}
    )

    match: Annotated[Pool, Field(description="Images that were missed: what looks like them belongs here.")] = ()
    unlike: Annotated[Pool, Field(description="Images that were wrongly flagged: what looks like them does not.")] = ()
    strength: Annotated[
        float,
        Field(gt=0.5, lt=1, description="Score of a `match` image itself; that of an `unlike` image is 1 less this."),
    ] = DEFAULT_STRENGTH

    def pools(self) -> Iterator[tuple[Kind, int, Exemplar]]:
        """Yield each exemplar with its pool and its place there."""
        for kind in KINDS:
            for index, exemplar in enumerate(getattr(self, kind)):
                yield kind, index, exemplar

    @model_validator(mode="after")
    def _says_something(self) -> Exemplars:
        if not self.match and not self.unlike:
            raise ValueError("give match, unlike or both; leave `exemplars` out where there is none")
        return self


def nowhere(_ref: str) -> Exemplar:
    """Find nothing: of a text without a place.

    Raises:
        ValueError: Always.
    """
    raise ValueError("this text has no directory, so its exemplars cannot be read; check the file itself")


def carried(rows: Mapping[str, Any]) -> Finder:
    """Return a finder for exemplars that came with the text.

    Args:
        rows: By ref: `model`, `dim` and `embeddings`, as `to_carry` gave them.
    """

    def find(ref: str) -> Exemplar:
        if ref not in rows:
            raise ValueError("its embedding was not published with it; publish the version again")
        row = rows[ref]
        return _made({**(row if isinstance(row, dict) else {}), "ref": ref})

    return find


def to_carry(exemplar: Exemplar) -> dict[str, Any]:
    """Return what `carried` needs of an exemplar, plain JSON."""
    return exemplar.model_dump(mode="json", exclude={"ref"})


def _made(row: dict[str, Any]) -> Exemplar:
    try:
        return Exemplar.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(where + str(first["msg"]).removeprefix("Value error, ")) from error
