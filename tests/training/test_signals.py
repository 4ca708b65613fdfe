"""A signal ends a training after its iteration, with a checkpoint from which it goes on bit for bit."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny_runs
import torch
import two_ranks

from basicsr_plugins.models.restoration_model import RestorationModel
from basicsr_plugins.training import checkpointing
from basicsr_plugins.training.signals import SIGNALS, StopSignals

TESTS = Path(__file__).parents[1]
NAMES = [signal.Signals(number).name for number in SIGNALS]


@pytest.fixture(autouse=True)
def _handlers():
    numbers = [*SIGNALS, *([signal.SIGCHLD] if hasattr(signal, "SIGCHLD") else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in SIGNALS:  # nohup, and a shell's &, have some of them ignored
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A folder with images and the run that was never stopped, and what it left after iteration 6."""
    folder = tmp_path_factory.mktemp("signals")
    tiny_runs.write_images(folder / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(folder, "straight") == 0
    return folder, left(folder / "experiments" / "straight")


def run(folder, name, *arguments, workers=0):
    options = tiny_runs.option_file(
        folder / "images", name=name, logger={"save_checkpoint_freq": 2}, train={"total_iter": 6, "ema_decay": 0.9},
        val={"val_freq": 3, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
    )  # fmt: skip
    options["datasets"]["train"]["num_worker_per_gpu"] = workers
    options["datasets"]["val"] = tiny_runs.validation_set(folder / "images")
    return tiny_runs.run_command("train", "-opt", tiny_runs.write_options(folder / f"{name}.yml", options), *arguments)


def left(root):
    """Return the weights and the training state of iteration 6."""
    network = torch.load(root / "models" / "net_g_6.pth", weights_only=True)
    return network, torch.load(root / "training_states" / "6.state", weights_only=True)


MOMENTS = {
    # in which call, and after which iteration the run has to stop
    "iteration": (RestorationModel, "_backward", 5),
    "validation": (RestorationModel, "aggregate", 3),
    "save": (checkpointing.Checkpointing, "training_state", 2),
}


@pytest.mark.parametrize(
    ("name", "moment"), [*((name, "iteration") for name in NAMES), ("SIGTERM", "validation"), ("SIGTERM", "save")]
)
def test_the_iteration_ends_a_checkpoint_is_written_and_the_run_goes_on_from_it(straight, monkeypatch, name, moment):
    folder, expected = straight
    monkeypatch.chdir(folder)
    place, function, stopped_after = MOMENTS[moment]
    number, whole = getattr(signal, name), getattr(place, function)

    def interrupted(self, *args, **kwargs):
        result = whole(self, *args, **kwargs)
        if self.last_iter == stopped_after and self.stop.received is None:
            os.kill(os.getpid(), number)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(place, function, interrupted)
        with pytest.raises(SystemExit) as stopped:
            run(folder, f"{name}_{moment}")
    assert stopped.value.code == 128 + number
    root = folder / "experiments" / f"{name}_{moment}"
    assert max(int(file.stem) for file in (root / "training_states").glob("*.state")) == stopped_after
    gc.collect()
    assert run(folder, f"{name}_{moment}", "--auto_resume") == 0
    assert tiny_runs.differences(expected, left(root)) == []


class Trains:
    """Something that trains, as far as ``StopSignals`` sees it."""

    is_running = True

    def __init__(self):
        self.stopped = []

    def stop_training(self, number):
        self.stopped.append(number)


def listening(model):
    stop = StopSignals(model)
    stop.install()
    return stop


def test_a_second_signal_ends_at_once(monkeypatch):
    model = Trains()
    monkeypatch.setattr(os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))

    def twice():
        with listening(model):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as ended:
        twice()
    assert ended.value.code == 128 + signal.SIGINT
    assert model.stopped == []


def test_where_no_training_runs_a_signal_does_what_it_always_does():
    for ended in (True, False):
        model = Trains()
        model.is_running = not ended
        listening(model)
        if not ended:
            del model
            gc.collect()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT) or time.sleep(1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_of_a_program_stay():
    own = []
    signal.signal(signal.SIGTERM, lambda *_: own.append(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    model = Trains()
    with listening(model):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert (own, model.stopped) == ([1], [])


def test_the_newest_training_of_a_process_listens():
    first, second = Trains(), Trains()
    earlier = listening(first)
    with listening(second):
        os.kill(os.getpid(), signal.SIGTERM)
    assert (first.stopped, second.stopped, earlier.received) == ([], [signal.SIGTERM], None)


def test_other_threads_install_nothing():
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: listening(Trains()))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_loop_of_ones_own_keeps_its_handlers(tmp_path):
    gc.collect()
    before = [signal.getsignal(number) for number in SIGNALS]
    tiny_runs.train(tiny_runs.make_model(tmp_path), [1])
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_all_ranks_stop_after_the_same_iteration(tmp_path):
    def on_a_rank(rank):
        model = tiny_runs.make_model(tmp_path, train={"total_iter": 6}, dist=True, rank=rank, world_size=2)
        if rank == 1:
            model.stop.received = int(signal.SIGUSR1)
        try:
            tiny_runs.train(model, range(1, 5))
        except SystemExit as end:
            return end.code, model.last_iter
        return 0, model.last_iter

    assert two_ranks.fork(on_a_rank, tmp_path) == [(128 + signal.SIGUSR1, 1)] * 2
    assert (tmp_path / "experiments" / "tiny" / "training_states" / "1.state").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
@pytest.mark.parametrize("name", NAMES)
def test_a_process_group_with_loader_processes_ends_with_a_checkpoint(straight, monkeypatch, name):
    """As a terminal's Ctrl-C and Slurm's scancel do it: everything gets the signal, the loader's processes too."""
    folder, expected = straight
    monkeypatch.chdir(folder)
    title = f"group_{name}"
    slow = (
        "import sys, time; sys.path[:0] = sys.argv[1:3]; import test_signals, pathlib\n"
        "from basicsr_plugins.models.restoration_model import RestorationModel as M\n"
        "step = M.optimize_parameters\n"
        "def slower(self, i):\n    time.sleep(0.3); step(self, i); print('done', i, flush=True)\n"
        "M.optimize_parameters = slower\n"
        f"sys.exit(test_signals.run(pathlib.Path('.'), {title!r}, workers=2))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    process = subprocess.Popen(
        [sys.executable, "-c", slow, str(TESTS), str(Path(__file__).parent)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    output = []
    for line in process.stdout:
        output.append(line)
        if line.startswith("done 2"):
            os.killpg(process.pid, getattr(signal, name))
            break
    output.append(process.communicate(timeout=100)[0])
    assert process.returncode == 128 + getattr(signal, name), "".join(output)[-3000:]
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        os.killpg(process.pid, 0)
    root = folder / "experiments" / title
    assert max(int(file.stem) for file in (root / "training_states").glob("*.state")) in (2, 3)
    assert run(folder, title, "--auto_resume", workers=2) == 0
    assert tiny_runs.differences(expected[0], left(root)[0]) == []
