"""Linear stages that are computed once: whoever tries many deformable settings on one pair begins where it ended."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from warpwise.io.run_folder import appearing
from warpwise.io.scan import Scans
from warpwise.io.stamp import stamp
from warpwise.methods import Method
from warpwise.pair import Pair
from warpwise.registrars.crop import focused
from warpwise.registrars.linear import stripped
from warpwise.registrars.linear.affine import LinearSolution
from warpwise.registrars.linear.stage import Aligned, align
from warpwise.registrars.linear.starts import Start


@dataclass(frozen=True)
class LinearStages:
    """A folder in which linear stages are kept, by what decides them: the files, `images`, `linear`, and the terms that are
    looked at there. Of scans in memory nothing is kept, and nothing where a transform to begin with is given.

    What is read back is what was found, to the bit; its steps alone are not kept.
    """

    folder: Path

    def aligned(self, scans: Scans, pair: Pair, method: Method, *, reduction: int = 1) -> tuple[Aligned, float]:
        """`align` of a prepared pair, now or before; and the seconds that it took then.

        Args:
            scans: which the pair was made of; pair: prepared; reduction: by which it was thinned out.
        """
        name = named(scans, method, reduction)
        known = None if name is None else self._kept(name, pair)
        if known is not None:
            return known
        began = time.perf_counter()
        found = align(pair, method.linear, method.terms())
        seconds = time.perf_counter() - began
        if name is not None:
            with appearing(self.folder) as scratch:
                (scratch / f"{name}.json").write_text(json.dumps(written(found, seconds)), encoding="utf-8")
        return found, seconds

    def _kept(self, name: str, pair: Pair) -> tuple[Aligned, float] | None:
        place = self.folder / f"{name}.json"
        try:
            return read(json.loads(place.read_text(encoding="utf-8")), pair)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            place.unlink(missing_ok=True)  # found anew
            return None


def named(scans: Scans, method: Method, reduction: int) -> str | None:
    """A name for the linear stage of two scans by a method; None where not all of them are files."""
    terms = method.terms()
    files: list[Path] = []
    for scan in scans:
        source = scan.source
        if source is None or source.path is None:
            return None
        parts = [(scan.image, source.image), (scan.mask, source.mask), (scan.exclude, source.exclude)]
        parts += [(scan.labels, source.labels)] if terms.labels is not None else []
        parts += [(scan.landmarks, source.landmarks)] if terms.landmarks is not None else []
        for read_part, file in parts:
            if read_part is None:
                continue
            if not isinstance(file, str | Path):
                return None
            files.append(Path(file))
    guides = {"labels": terms.labels, "landmarks": terms.landmarks}
    held = [[scan.mask is not None, scan.exclude is not None, scan.labels is not None] for scan in scans]
    return stamp(
        *files,
        images=method.images.model_dump(mode="json"),
        linear=None if method.linear is None else method.linear.model_dump(mode="json"),
        measures=terms.leading.linear if method.linear is not None else None,
        guides={key: None if term is None else term.model_dump(mode="json") for key, term in guides.items()},
        held=held,
        readings=[repr(scan.source.reading) for scan in scans if scan.source is not None],
        reduction=reduction,
    )


def written(found: Aligned, seconds: float) -> dict[str, Any]:
    """A linear stage as plain data; numbers survive to the bit."""
    solution = found.solution
    return {
        "start": {**asdict(found.start), "to_moving": found.start.to_moving.tolist()},
        "to_moving": solution.to_moving.tolist(),
        "value": float(solution.value),
        "stops": list(solution.stops),
        "measure": found.measure,
        "cut_out": found.cut_out,
        "shading": float(found.shading),
        "flattened": bool(found.flattened),
        "seconds": seconds,
    }


def read(content: Mapping[str, Any], pair: Pair) -> tuple[Aligned, float]:
    """What was written, of a pair that was prepared anew.

    Raises:
        KeyError, TypeError, ValueError: something is missing.
    """
    start = Start(**{**content["start"], "to_moving": matrix(content["start"]["to_moving"])})
    side = cast(stripped.Side | None, content["cut_out"])
    objects = focused(pair)
    objects = objects if side is None else stripped.masked(objects, side)
    solution = LinearSolution(matrix(content["to_moving"]), float(content["value"]), (), tuple(content["stops"]))
    found = Aligned(
        objects.moved(start.to_moving),
        start,
        str(content["measure"]),
        solution,
        side,
        float(content["shading"]),
        bool(content["flattened"]),
    )
    return found, float(content["seconds"])


def matrix(rows: Any) -> Any:
    """Rows of numbers as a 4×4 matrix."""
    return np.array(rows, np.float64).reshape(4, 4)
