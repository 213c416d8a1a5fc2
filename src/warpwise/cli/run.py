"""What `register` and `demo` share: what is said of a registration, and the report beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from warpwise.registration.files import FIGURES, REPORT, Extra, Output, register_files
from warpwise.registration.result import Result

if TYPE_CHECKING:
    from warpwise.cli.progress import Progress
    from warpwise.io.scan import Scan, Scans
    from warpwise.methods import Method
    from warpwise.registration.record import Record


def run(
    fixed: "Scan",
    moving: "Scan",
    output: Output,
    method: "Method",
    *,
    initial: tuple[str, ...] = (),
    threads: int | None = None,
    say: "Progress",
) -> Result:
    """Register files and say how it went.

    Raises:
        InputError: something given cannot be used, or results exist; nothing is written then.
    """
    if threads:
        use_threads(threads, learned=method.registrar is not None and method.registrar.kind in ("network", "refined"))
    result = register_files(fixed, moving, output, method=method, initial=initial, on_step=say)
    certificate = result.certificate
    say.line(
        f"Folds: {certificate.percent_folded:g} % of voxels, {certificate.percent_ndv:g} % of the volume. "
        f"Forward and inverse agree to {certificate.forward_inverse_mean:.1g} voxel (mean), "
        f"{certificate.forward_inverse_max:.1g} (largest); with the inverse on voxels, as files hold it, to "
        f"{certificate.inverse_file_mean:.1g} and {certificate.inverse_file_max:.1g}."
    )
    for warning in result.warnings:
        say.warning(warning)
    return result


def use_threads(number: int, *, learned: bool) -> None:
    """So many, in kernels and, where there is a network, in torch."""
    from warpwise.ops import runtime

    runtime.set_threads(number)
    if learned:
        import torch

        torch.set_num_threads(number)


def extras(*, report: bool, figures: bool) -> tuple[Extra | None, tuple[str, ...]]:
    """What writes a report and its figures, and the names that these will have.

    Raises:
        InputError: what draws them is not installed.
    """
    if not (report or figures):
        return None, ()
    from warpwise.report import available

    available()

    def write(folder: Path, names: Mapping[str, str], result: Result, scans: "Scans", record: "Record") -> None:
        from warpwise.report.material import Material
        from warpwise.report.page import page, write_figures

        material = Material.of_result(result, (scans[0].image, scans[1].image), record)
        if figures:
            write_figures(folder / names[FIGURES], material)
        if report:
            (folder / names[REPORT]).write_text(page(material), encoding="utf-8")

    return write, (*((REPORT,) if report else ()), *((FIGURES,) if figures else ()))
