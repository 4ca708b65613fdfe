"""The numbered files of a run."""

from __future__ import annotations

import os

from basicsr_plugins.training import run_files


def test_numbered_files_and_pruning_leave_named_ones(tmp_path):
    names = ["net_g_1.pth", "net_g_20.pth", "net_g_3.pth", "net_g_latest.pth", "net_g_best_a_psnr.pth", "net_dc_1.pth"]
    for name in names:
        (tmp_path / name).touch()
    assert sorted(run_files.numbered_files(tmp_path, "net_g_", ".pth")) == [1, 3, 20]
    run_files.prune(tmp_path, "net_g_", ".pth", 2)
    assert sorted(os.listdir(tmp_path)) == sorted(set(names) - {"net_g_1.pth"})
    assert run_files.numbered_files(tmp_path / "nowhere", "", ".state") == {}
