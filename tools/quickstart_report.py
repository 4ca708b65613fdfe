"""Print quickstart's table from the logs of its runs, and draw input, result and clean image side by side."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import cv2
import numpy as np

NAMES = ("rain", "noise", "haze", "low_light", "blur", "average")


def read_table(folder: Path) -> dict[str, dict[str, float]]:
    """Return {data set: {metric: value}} from the last table in a test's log."""
    log = max(folder.glob("*.log"), key=lambda path: path.stat().st_mtime).read_text()
    header, *rows = log.rpartition("All data sets:\n")[2].splitlines()
    metrics = header.split()
    table = {}
    for row in rows:
        name, *values = row.split()
        if name not in NAMES:
            break
        table[name] = {metric: float(value) for metric, value in zip(metrics, values) if value != "-"}
    return table


def accuracy(folder: Path) -> float:
    """Return the last validation accuracy in a training's logs."""
    logs = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
    found = [value for log in logs for value in re.findall(r"# accuracy: ([\d.]+)", log.read_text())]
    return float(found[-1])


def pictures(work: Path) -> list[Path]:
    """Write one picture per degradation: input | fine-tuned from DCPT | clean."""
    from basicsr_plugins.core.safe_yaml import load_yaml
    from basicsr_plugins.data.degradation_dataset import DegradationDataset

    written = []
    options = load_yaml(work / "options" / "demo" / "test_nafnet.yml")["datasets"]
    for dataset_options in options.values():
        dataset = DegradationDataset(
            {**dataset_options, "dataroot_gt": str(work / "datasets/demo/test"), "phase": "test"}
        )
        sample = dataset[0]
        stem = Path(sample["lq_path"]).stem
        folder = work / "results" / "demo_test_finetune" / "visualization" / dataset_options["name"]
        restored = cv2.imread(str(folder / f"{stem}_demo_test_finetune.png"))
        sides = [(sample[key].permute(1, 2, 0).numpy()[..., ::-1] * 255).round().clip(0, 255) for key in ("lq", "gt")]
        target = work / f"before_after_{dataset_options['name']}.png"
        cv2.imwrite(str(target), np.concatenate([sides[0], restored, sides[1]], axis=1).astype(np.uint8))
        written.append(target)
    return written


def main() -> None:
    """Print everything."""
    work = Path(sys.argv[1]).resolve()
    dcpt, scratch = (read_table(work / "results" / f"demo_test_{which}") for which in ("finetune", "scratch"))
    print(f"\n{'PSNR (dB)':12}{'input':>10}{'from scratch':>15}{'from DCPT':>12}")
    for name in NAMES:
        row = (dcpt[name]["psnr_input"], scratch[name]["psnr"], dcpt[name]["psnr"])
        print(f"{name:12}{row[0]:10.2f}{row[1]:15.2f}{row[2]:12.2f}")
    share = accuracy(work / "experiments" / "demo_dcpt_nafnet")
    print(f"\naccuracy of the degradation classifier on unseen photographs: {share:.1%} (chance: 20 %)")
    print(
        "One seed, two test photographs, minutes of training: this shows that everything works, not how well DCPT does."
    )
    print("\ninput | restored | clean:")
    for path in pictures(work):
        print(f"  {path}")


if __name__ == "__main__":
    main()
