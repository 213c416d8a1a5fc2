"""Faults, injected for real: kills, interrupts, full and read-only disks, short memory, two processes, NaN."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from asking import register
from faults import KillTest, soak
from filelock import FileLock

import warpwise as ww
from warpwise.errors import InputError, RunError
from warpwise.image import Image
from warpwise.io.images import write_image
from warpwise.io.locks import Lock
from warpwise.io.memory import free_memory
from warpwise.io.run_folder import LOCK, OWNER, appearing, locked
from warpwise.registration.deliver import on_image
from warpwise.registration.result import FILES
from warpwise.similarity.local import LNCC

PROGRAM = [sys.executable, "-c", "from warpwise.cli import main; main()"]


def command(files: Path, out: Path, *more: object) -> list[str]:
    return [
        *PROGRAM,
        "register",
        str(files / "fixed.nii.gz"),
        str(files / "moving.nii.gz"),
        "-o",
        str(out),
        *map(str, more),
    ]


def test_kills_leave_no_partial_file_and_a_rerun_succeeds(tmp_path: Path):
    found = KillTest(tmp_path, seed=7).many(6)
    assert all(f["killed"] for f in found)
    assert not [f for f in found if f["partial"] or f["wrong_after_rerun"] or f["left"]], found


def test_memory_does_not_grow_over_many_registrations():
    # 200 of them grow by less than 2 % (benchmarks/faults.py); a leak of one field a run would be 100 % here.
    assert soak(60, warm_up=30)["growth_percent"] < 5


def worked(who: int) -> float:
    """CPU seconds of this process or of its children that ended."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


SLOW = ("--overwrite", "--preset", "accurate", "--transform", "svf")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Kernels are there: while one is compiled, a Ctrl-C waits for it, some seconds on a busy machine."""
    folder = tmp_path_factory.mktemp("compiled")
    pair = ww.brain_pair((32, 38, 30), seed=4)
    for name, image in (("fixed", pair.fixed), ("moving", pair.moving)):
        write_image(folder / f"{name}.nii.gz", image)
    subprocess.run(command(folder, folder / "out", *SLOW), check=True, capture_output=True)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("delay", [0.3, 1.2, 2.0])
def test_ctrl_c_stops_soon_and_keeps_what_was_there(tmp_path: Path, delay: float):
    pair = ww.brain_pair((128, 152, 120), seed=4)
    for name, image in (("fixed", pair.fixed), ("moving", pair.moving)):
        write_image(tmp_path / f"{name}.nii.gz", image)
    out = tmp_path / "out"
    out.mkdir()
    (out / "warped.nii.gz").write_text("precious")
    earlier = worked(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        command(tmp_path, out, *SLOW),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    time.sleep(delay)
    assert process.poll() is None
    before = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    # Work, not time, of which a busy machine gives as little as it likes: three seconds of each core at most.
    until = sum(map(int, before[11:13])) / os.sysconf("SC_CLK_TCK")
    assert worked(resource.RUSAGE_CHILDREN) - earlier - until < 3 * (os.cpu_count() or 1)
    assert process.returncode in (130, -signal.SIGINT)
    assert b"Traceback" not in err or process.returncode == -signal.SIGINT
    assert [p.name for p in out.iterdir()] == ["warped.nii.gz"]
    assert (out / "warped.nii.gz").read_text() == "precious"


@pytest.mark.parametrize(
    "happens",
    [
        """
class HalfMade:
    def __init__(self):
        signal.raise_signal(signal.SIGINT)
        self.pointer = 1
    def __del__(self):
        self.pointer
def work():
    HalfMade()
""",
        """
class Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)
def work():
    Dying()
    time.sleep(60)
""",
    ],
    ids=["an object half made does not complain", "one that falls into a destructor is not lost"],
)
def test_ctrl_c_stops_a_program_without_a_word(happens: str):
    program = f"""
import signal, time
from warpwise.cli import interrupted
signal.signal(signal.SIGINT, interrupted)
{happens}
try:
    work()
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


class SmallDisk:
    """A file system of a few megabytes, or none where this machine does not let us mount one."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, check=False
        )
        self.mounted = done.returncode == 0

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)

    def __enter__(self) -> "SmallDisk":
        return self

    def __exit__(self, *_: object) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)


def test_a_disk_too_small_is_refused_before_the_work(files: Path, tmp_path: Path, warpwise):
    with SmallDisk(tmp_path / "disk", 1) as disk:
        if not disk.mounted:
            pytest.skip("file systems cannot be mounted here; the limit on file sizes is tested instead")
        (disk.folder / "filler").write_bytes(b"\0" * 700_000)
        code, _, err = warpwise("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", disk.folder / "out")
        assert code == 2
        assert "the results need about" in err
        assert [p.name for p in disk.folder.iterdir()] == ["filler"]


def test_a_disk_that_fills_up_loses_nothing(files: Path, tmp_path: Path, warpwise):
    with SmallDisk(tmp_path / "disk", 3) as disk:
        if not disk.mounted:
            pytest.skip("file systems cannot be mounted here; the limit on file sizes is tested instead")
        out = disk.folder / "out"
        out.mkdir()
        (out / "warped.nii.gz").write_text("precious")
        (out / "filler").write_bytes(b"\0" * 1_600_000)
        code, _, err = warpwise("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", out, "--overwrite")
        assert code in (1, 2), err
        assert "Traceback" not in err
        assert "space" in err or "the results need" in err
        assert sorted(p.name for p in out.iterdir()) == ["filler", "warped.nii.gz"]
        assert (out / "warped.nii.gz").read_text() == "precious"


def test_files_that_cannot_grow_lose_nothing(files: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "result.json").write_text("precious")
    limit = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); from warpwise.cli import execute;"
        f"sys.exit(execute({command(files, out, '--overwrite', '--quiet')[3:]!r}))"
    )
    done = subprocess.run([sys.executable, "-c", limit], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("Error: ")
    assert [p.name for p in out.iterdir()] == ["result.json"]
    assert (out / "result.json").read_text() == "precious"


def test_a_read_only_folder_is_refused_before_the_work(files: Path, tmp_path: Path, warpwise):
    with SmallDisk(tmp_path / "disk", 8) as disk:
        if not disk.mounted:
            disk.folder.chmod(0o555)
        else:
            disk.read_only()
        if os.access(disk.folder, os.W_OK):
            pytest.skip("nothing is read-only to this user")
        code, _, err = warpwise("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", disk.folder / "out")
        assert (code, "no permission to write" in err) == (2, True)
        code, _, err = warpwise(
            "apply", files / "fixed.nii.gz", files / "moving.nii.gz", "--like", files / "fixed.nii.gz",
            "-o", disk.folder / "a.nii",
        )  # fmt: skip
        assert (code, "no permission to write" in err) == (2, True)


def short_of_memory(files: Path, out: Path, megabytes: int, *more: str) -> subprocess.CompletedProcess:
    """Register in a process that may take so much memory more than its libraries took."""
    code = (
        "import resource, sys; from pathlib import Path; import warpwise.cli.run; from warpwise.cli import execute;"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize();"
        f"limit = used + {megabytes} * 10**6; resource.setrlimit(resource.RLIMIT_AS, (limit, limit));"
        f"sys.exit(execute({[*command(files, out, '--threads', 1, '--quiet'), *more][3:]!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_short_memory_is_refused_with_both_numbers_or_fitted(tmp_path: Path):
    pair = ww.brain_pair((160, 190, 150), seed=4)
    for name, image in (("fixed", pair.fixed), ("moving", pair.moving)):
        write_image(tmp_path / f"{name}.nii.gz", image)
    refused = short_of_memory(tmp_path, tmp_path / "out", 600)
    assert refused.returncode == 2, refused.stderr
    assert "MB more are needed and" in refused.stderr
    assert "--fit-memory" in refused.stderr
    assert not (tmp_path / "out").exists()
    fitted = short_of_memory(tmp_path, tmp_path / "out", 600, "--fit-memory")
    assert fitted.returncode == 0, fitted.stderr
    assert "one voxel in 2" in fitted.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["choices"]["voxels"].startswith("one in 2")
    assert result["certificate"]["percent_ndv"] == 0
    warped = ww.load_image(tmp_path / "out" / "warped.nii.gz")
    assert warped.grid.same_as(pair.fixed.grid)
    displacement = ww.load_transform(tmp_path / "out" / "transform.h5").displacement(pair.fixed.grid)
    truth, voxel = pair.truth.displacement(pair.fixed.grid), np.array(pair.fixed.grid.spacing_mm, np.float32)[:, None]
    error = np.linalg.norm((displacement - truth)[:, pair.body] / voxel, axis=0).mean()
    assert error < 1.0  # voxels; 0.4 on all of them
    assert free_memory() > 0


def test_a_field_on_thinned_voxels_is_put_back_on_a_flipped_image():
    from warpwise.grid import Grid

    affine = np.array([[0, -2.0, 0, 5], [0, 0, 3.0, 1], [-1.5, 0, 0, 2], [0, 0, 0, 1]])
    grid = Grid((7, 8, 9), affine)  # axes run down, left, forwards
    at = [np.arange(0, n, 2, dtype=np.float32) for n in (8, 9, 7)]  # right, forwards, up
    thin = np.stack(np.meshgrid(*at, indexing="ij"))
    found = on_image(thin, (2, 2, 2), grid).vectors
    assert found.shape == (3, 7, 8, 9)
    x, y, z = 2, 5, 4
    assert np.allclose(found[:, x, y, z], [min(7 - y, 6), z, min(6 - x, 6)])


def test_a_second_process_is_refused_and_a_dead_ones_lock_is_not(files: Path, tmp_path: Path, warpwise):
    out = tmp_path / "out"
    with locked(out):
        code, _, err = warpwise("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", out)
        assert code == 2
        assert f"process {os.getpid()} on {socket.gethostname()}" in err
        assert sorted(p.name for p in out.iterdir()) == [LOCK, OWNER]
    assert not out.exists()
    # A process that is killed while it works leaves its lock, its name and half a result.
    code = (
        "import sys, time; from pathlib import Path; from warpwise.io.run_folder import appearing, locked\n"
        f"with locked(Path({str(out)!r})), appearing(Path({str(out)!r})) as scratch:\n"
        "    (scratch / 'warped.nii.gz').write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    dying = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert dying.stdout.readline() == "ready\n"
    assert len([*out.iterdir()]) == 4  # both locks, the name, the scratch folder
    arguments = ("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", out, "--transform", "rigid")
    code, _, err = warpwise(*arguments)
    assert (code, f"process {dying.pid} on" in err) == (2, True)
    with appearing(out):
        assert [p for p in out.iterdir() if (p / "warped.nii.gz").exists()]  # it lives: its scratch folder stays
    dying.kill()
    dying.communicate()
    assert len([*out.iterdir()]) == 4
    code, _, err = warpwise(*arguments)
    assert code == 0, err
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    (out / LOCK).write_text("rubbish")
    (out / OWNER).write_text("rubbish")
    assert warpwise(*arguments, "--overwrite")[0] == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    (out / OWNER).write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    code, _, err = warpwise(*arguments, "--overwrite")
    assert (code, "process 1 on elsewhere" in err) == (2, True)
    assert sorted(p.name for p in out.iterdir()) == sorted([*FILES, OWNER])


def test_where_a_file_system_keeps_no_locks_a_name_that_was_left_is_believed(tmp_path: Path, monkeypatch):
    import errno
    import fcntl

    def refused(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refused)
    with locked(tmp_path), appearing(tmp_path) as scratch:
        (scratch / "a").write_text("x")
        with pytest.raises(InputError, match="another process works here"), locked(tmp_path):
            pass
        with appearing(tmp_path):
            assert scratch.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_lock_on_a_file_that_was_taken_away_meanwhile_is_taken_anew(tmp_path: Path, monkeypatch):
    path = tmp_path / "lock"
    acquire, calls = FileLock.acquire, []

    def late(self, *args, **kwargs):
        lock = acquire(self, *args, **kwargs)
        calls.append(path)
        if len(calls) == 1:
            path.unlink()  # as the one before does, in the moment between opening and locking
        return lock

    monkeypatch.setattr(FileLock, "acquire", late)
    lock = Lock.take(path)
    assert lock is not None
    assert len(calls) == 2
    assert Lock.take(path) is None
    lock.leave()
    assert not path.exists()


def test_the_result_appears_last_and_all_or_nothing(tmp_path: Path, monkeypatch):
    out = tmp_path / "out"

    def broken() -> None:
        with appearing(out) as scratch:
            (scratch / "a").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert not out.exists()
    order: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: order.append(Path(target).name) or replace(self, target))
    with appearing(out, last="a.json") as scratch:
        for name in ("a.json", "b", "c"):
            (scratch / name).write_text("x")
    assert order == ["b", "c", "a.json"]


def test_a_similarity_that_turns_nan_halves_the_step_and_goes_on(monkeypatch):
    pair = ww.brain_pair((40, 48, 38), seed=3)
    fused = LNCC.fused
    calls = {"count": 0}

    def sick(self, fixed, weight, channel_weights):
        evaluate = fused(self, fixed, weight, channel_weights)

        def once(warped, gradient):
            calls["count"] += 1
            value = evaluate(warped, gradient)
            if calls["count"] == 7:
                gradient[:] = np.nan
                return float("nan")
            return value

        return once

    monkeypatch.setattr(LNCC, "fused", sick)
    found = register(pair.fixed, pair.moving, similarity="lncc")
    assert calls["count"] > 7
    assert np.isfinite(found.displacement_mm).all()
    assert np.isfinite(found.warped.data).all()
    assert found.certificate.percent_ndv == 0


def test_a_similarity_that_stays_nan_is_an_error_with_the_settings(monkeypatch, files: Path, tmp_path: Path, warpwise):
    monkeypatch.setattr(LNCC, "fused", lambda self, f, w, c: lambda warped, gradient: float("nan"))
    pair = ww.brain_pair((40, 48, 38), seed=3)
    with pytest.raises(RunError, match=r"diverged at scale 2 with steps of 0\.5 voxels"):
        register(pair.fixed, pair.moving, similarity="lncc")
    code, _, err = warpwise(
        "register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", tmp_path / "out", "--similarity", "lncc"
    )
    assert (code, "diverged" in err, "Traceback" in err) == (1, True, False)
    assert not (tmp_path / "out").exists()


def test_a_cache_that_cannot_be_written_is_replaced_with_one_line(files: Path, tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(blocked / "cache")}
    code = (
        "from warpwise.ops import runtime; from pathlib import Path; import numba;"
        "print(runtime.cache_note()); print(Path(numba.config.CACHE_DIR).is_dir())"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    note, usable = done.stdout.splitlines()
    assert "cannot be written" in note
    assert usable == "True"


def test_odd_paths_work(files: Path, tmp_path: Path, warpwise):
    deep = tmp_path / "a space" / "ünïcode" / ("long" * 40)
    deep.mkdir(parents=True)
    (deep / "fixed image.nii.gz").symlink_to(files / "fixed.nii.gz")
    code, _, err = warpwise(
        "register", deep / "fixed image.nii.gz", files / "moving.nii.gz", "-o", deep / "out put", "--transform", "rigid"
    )
    assert code == 0, err
    assert ww.load_transform(deep / "out put" / "transform.h5").dim == 3


def test_an_image_registered_with_itself_stays(files: Path, tmp_path: Path, warpwise):
    same = files / "fixed.nii.gz"
    assert warpwise("register", same, same, "-o", tmp_path / "out")[0] == 0
    image = ww.load_image(same)
    moved = ww.load_transform(tmp_path / "out" / "transform.h5").displacement(image.grid)
    assert np.abs(moved).max() / min(image.grid.spacing_mm) < 1e-3


def test_images_far_apart_meet_and_initial_transforms_that_miss_are_refused(files: Path):
    from warpwise.grid import Grid
    from warpwise.transforms.affine import Affine

    fixed, moving = (ww.load_image(files / f"{n}.nii.gz") for n in ("fixed", "moving"))
    affine = moving.grid.affine.copy()
    affine[:3, 3] += [300, -200, 100]
    far = Image(moving.data, Grid(moving.grid.shape, affine))
    near, away = (register(fixed, m, transform="rigid") for m in (moving, far))
    at = np.array([[0.0, 0, 0], [20, -30, 10]])
    assert np.allclose(away.transform.points(at) - [300, -200, 100], near.transform.points(at), atol=0.05)
    with pytest.raises(InputError, match="do not overlap"):
        register(fixed, far, initial=Affine(np.eye(4)), transform="rigid")


def test_small_images_use_fewer_scales_and_never_crash():
    rng = np.random.default_rng(0)
    for shape in ((7, 9, 11), (33, 7, 19), (13, 17, 5), (9, 9), (31, 6)):
        data = rng.random(shape).astype(np.float32)
        found = register(data, np.roll(data, 1, 0))
        assert found.certificate.percent_ndv == 0
        assert np.isfinite(found.warped.data).all()


def test_an_axis_too_short_to_halve_is_mentioned(tmp_path: Path, warpwise):
    import nibabel as nib

    for name in ("a", "b"):
        data = np.random.default_rng(0).random((30, 32, 6)).astype(np.float32)
        nib.Nifti1Image(data, np.diag([1, 1, 6, 1.0])).to_filename(tmp_path / f"{name}.nii")
    code, _, err = warpwise("register", tmp_path / "a.nii", tmp_path / "b.nii", "-o", tmp_path / "out", "--preset", "fast")
    assert code == 0, err
    assert "a.nii: 6 voxels along an axis" in err


def test_transforms_of_another_dimension_are_refused(files: Path, tmp_path: Path, warpwise):
    import SimpleITK as sitk

    sitk.WriteTransform(sitk.Euler2DTransform([1.0, 2.0], 0.1), str(tmp_path / "plane.tfm"))
    (tmp_path / "nan.tfm").write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        "Parameters: nan 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n"
    )
    sitk.WriteTransform(sitk.AffineTransform(3), str(tmp_path / "nan.h5"))
    with h5py.File(tmp_path / "nan.h5", "r+") as file:
        file["TransformGroup/0/TransformParameters"][4] = np.nan
    for name, words in (("plane.tfm", "2-D"), ("nan.tfm", "not a readable transform"), ("nan.h5", "not finite")):
        code, _, err = warpwise(
            "apply", tmp_path / name, files / "moving.nii.gz", "--like", files / "fixed.nii.gz", "-o", tmp_path / "o.nii"
        )
        assert (code, words in err) == (2, True), err
        assert not (tmp_path / "o.nii").exists()
